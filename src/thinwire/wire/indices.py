"""Which entries a sparse payload keeps, in the shortest of four codes.

Code 0 writes every index with ``ceil(log2(numel))`` bits, code 1 is the Rice code of
:mod:`thinwire.kernels.rice`, code 2 one bit for every entry of the vector, code 3 the exp-Golomb code of
:mod:`thinwire.kernels.exp_golomb`. Indices spread evenly take fewest bits in code 1, clustered ones in code 3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bits import num_packed_bytes, pack, unpack
from thinwire.kernels.exp_golomb import encode_with_orders, exp_golomb_decode_prefix, orders_of_gaps
from thinwire.kernels.rice import (
    MAX_PARAMETER,
    choice_of_gaps,
    encode_gaps,
    gaps_of,
    max_rice_num_bytes,
    rice_decode_prefix,
)
from thinwire.wire.header import Bytes, Reader, bytes_of

_FIXED, _RICE, _BITMAP, _EXP_GOLOMB = 0, 1, 2, 3
_MAX_WIDTH = 31


@dataclass(frozen=True, slots=True)
class IndexCode:
    """The code chosen for one set of indices, and what it takes with the tag."""

    tag: int
    num_bytes: int
    parameter: int = 0


def choose_code(indices: Tensor, numel: int) -> IndexCode:
    """The code with the fewest bytes; of equal ones, the first.

    Raises:
        ConfigError: indices that are not strictly ascending within ``[0, numel)``.

    Example:
        >>> choose_code(torch.tensor([3, 500, 900]), 1000)
        IndexCode(tag=0, num_bytes=5, parameter=0)
        >>> choose_code(torch.arange(0, 1000, 50), 1000)
        IndexCode(tag=1, num_bytes=20, parameter=5)
        >>> choose_code(torch.cat([torch.arange(20), torch.arange(900, 920)]), 1000)
        IndexCode(tag=3, num_bytes=11, parameter=0)
    """
    return _choose_code(gaps_of(indices), indices, numel)[0]


def _choose_code(gaps: Tensor, indices: Tensor, numel: int) -> tuple[IndexCode, Tensor]:
    """The code, and the orders that code 3 takes."""
    count = indices.numel()
    if count and int(indices.numpy(force=True)[-1]) >= numel:
        raise ConfigError(f"indices are an ascending int64 vector below {numel}")
    parameter, rice_bytes = choice_of_gaps(gaps)
    orders, exp_golomb_bytes = orders_of_gaps(gaps)
    sizes = [(2 + rice_bytes, _RICE), (1 + (numel + 7) // 8, _BITMAP), (1 + exp_golomb_bytes, _EXP_GOLOMB)]
    if _width(numel) <= _MAX_WIDTH:
        sizes.append((1 + num_packed_bytes(count, _width(numel)), _FIXED))
    num_bytes, tag = min(sizes)
    return IndexCode(tag, num_bytes, parameter if tag == _RICE else 0), orders


def max_indices_num_bytes(count: int, numel: int) -> int:
    """Upper bound of ``choose_code(...).num_bytes`` over all sets of ``count`` indices below ``numel``.

    Code 3 is left out: it can only make the fewest bytes fewer.
    """
    bounds = [1 + (numel + 7) // 8]
    bounds += [2 + max_rice_num_bytes(count, numel, parameter) for parameter in range(MAX_PARAMETER + 1)]
    if _width(numel) <= _MAX_WIDTH:
        bounds.append(1 + num_packed_bytes(count, _width(numel)))
    return min(bounds)


def indices_parts(indices: Tensor, numel: int) -> list[bytes | Bytes]:
    """A tag, the Rice parameter if there is one, the code."""
    indices = indices.cpu()
    gaps = gaps_of(indices)
    code, orders = _choose_code(gaps, indices, numel)
    if code.tag == _FIXED:
        width = _width(numel)
        return [bytes([_FIXED]), bytes_of(pack(indices, width)) if width else b""]
    if code.tag == _RICE:
        return [bytes([_RICE, code.parameter]), bytes_of(encode_gaps(gaps, code.parameter, code.num_bytes - 2))]
    if code.tag == _EXP_GOLOMB:
        return [bytes([_EXP_GOLOMB]), bytes_of(encode_with_orders(gaps, orders, code.num_bytes - 1))]
    kept = np.zeros(numel, np.uint8)
    kept[indices.numpy()] = 1
    return [bytes([_BITMAP]), np.packbits(kept, bitorder="little")]


def read_indices(reader: Reader, count: int, numel: int) -> Tensor:
    """Read what :func:`indices_parts` wrote: int64 ``[count]``, strictly ascending, below ``numel``."""
    tag = reader.byte()
    if tag == _FIXED:
        return _read_fixed(reader, count, numel)
    if tag == _RICE:
        parameter = reader.byte()
        rest = torch.from_numpy(reader.data[reader.position :])
        indices, num_bytes = rice_decode_prefix(rest, count, numel, parameter)
        reader.take(num_bytes)
        return indices
    if tag == _BITMAP:
        bits = np.unpackbits(reader.take((numel + 7) // 8), bitorder="little")
        indices = torch.from_numpy(np.flatnonzero(bits))
        if len(indices) != count or (count and int(indices[-1]) >= numel):
            raise WireError(f"{len(indices)} bits are set for {count} values, or one after the last entry is")
        return indices
    if tag == _EXP_GOLOMB:
        rest = torch.from_numpy(reader.data[reader.position :])
        indices, num_bytes = exp_golomb_decode_prefix(rest, count, numel)
        reader.take(num_bytes)
        return indices
    raise WireError(f"index code {tag} is unknown; 0 to 3 are known")


def _width(numel: int) -> int:
    return max(numel - 1, 0).bit_length()


def _read_fixed(reader: Reader, count: int, numel: int) -> Tensor:
    width = _width(numel)
    if width > _MAX_WIDTH:
        raise WireError(f"index code 0 is for vectors of at most 2**31 entries, {numel} are declared")
    if width == 0:
        return torch.zeros(count, dtype=torch.int64)
    packed = reader.take(num_packed_bytes(count, width))
    if count * width % 8 and packed[-1] >> (count * width % 8):
        raise WireError("the bits after the last index are not zero")
    indices = unpack(torch.from_numpy(packed), count, width).to(torch.int64)
    numbers = indices.numpy()
    if count and (int(numbers[-1]) >= numel or bool((numbers[1:] <= numbers[:-1]).any())):
        raise WireError(f"indices do not ascend within {numel} entries")
    return indices
