"""Which entries a sparse payload keeps, in the shortest of five codes.

Code 0 writes every index with ``ceil(log2(numel))`` bits, code 1 is the Rice code of
:mod:`thinwire.kernels.entropy.rice`, code 2 one bit for every entry of the vector, code 3 the exp-Golomb code of
:mod:`thinwire.kernels.entropy.exp_golomb`, code 4 the adaptive code of :mod:`thinwire.kernels.entropy.adaptive_gaps`.
Indices spread evenly take fewest bits in code 1, clustered ones in code 3, or 4 if they are few: it is tried for at
most ``2**13`` indices, where code 3 is the shortest of the others.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bitpack.bits import num_packed_bytes, pack, unpack
from thinwire.kernels.entropy.adaptive_gaps import MAX_COUNT, adaptive_decode_prefix, encode_adaptive_gaps
from thinwire.kernels.entropy.exp_golomb import encode_with_orders, exp_golomb_decode_prefix
from thinwire.kernels.entropy.gap_sizes import measure_gaps
from thinwire.kernels.entropy.rice import MAX_PARAMETER, encode_gaps, max_rice_num_bytes, rice_decode_prefix
from thinwire.wire.kind import Coded, Pieces, bytes_of
from thinwire.wire.reader import Reader

_FIXED, _RICE, _BITMAP, _EXP_GOLOMB, _ADAPTIVE = 0, 1, 2, 3, 4
_CODES = {_FIXED: "fixed width", _RICE: "Rice", _BITMAP: "bitmap", _EXP_GOLOMB: "exp-Golomb", _ADAPTIVE: "adaptive"}
_MAX_WIDTH = 31


@dataclass(frozen=True, slots=True)
class IndexCode:
    """The code chosen for one set of indices, and what it takes with the tag."""

    tag: int
    num_bytes: int
    parameter: int = 0


def choose_code(indices: Tensor, numel: int) -> IndexCode:
    """The code with the fewest bytes; of equal ones, the first. Code 4 is tried where code 3 would be taken.

    Raises:
        ConfigError: indices that are not strictly ascending within ``[0, numel)``.

    Example:
        >>> choose_code(torch.tensor([3, 500, 900]), 1000)
        IndexCode(tag=0, num_bytes=5, parameter=0)
        >>> choose_code(torch.arange(0, 1000, 50), 1000)
        IndexCode(tag=1, num_bytes=20, parameter=5)
        >>> choose_code(torch.cat([torch.arange(20), torch.arange(900, 920)]), 1000)
        IndexCode(tag=4, num_bytes=8, parameter=0)
    """
    return _Choice(indices.cpu(), numel).code


class _Choice:
    """The code, and what was computed on the way to it."""

    def __init__(self, indices: Tensor, numel: int) -> None:
        self.measures = measure_gaps(indices)
        count = indices.numel()
        if count and int(indices.numpy()[-1]) >= numel:
            raise ConfigError(f"indices are an ascending int64 vector below {numel}")
        sizes = [(1 + (numel + 7) // 8, _BITMAP), (1 + self.measures.exp_golomb_num_bytes, _EXP_GOLOMB)]
        if self.measures.rice is not None:
            parameter, rice_num_bytes = self.measures.rice
            sizes.append((2 + rice_num_bytes, _RICE))
        if _width(numel) <= _MAX_WIDTH:
            sizes.append((1 + num_packed_bytes(count, _width(numel)), _FIXED))
        num_bytes, tag = min(sizes)
        # The size of this one is only known when it is written, so it is tried where the gaps vary and are few.
        may_pay = tag == _EXP_GOLOMB and 0 < count <= MAX_COUNT
        self.adaptive = encode_adaptive_gaps(self.measures.gaps, num_bytes - 2) if may_pay else None
        if self.adaptive is not None:
            num_bytes, tag = 1 + self.adaptive.numel(), _ADAPTIVE
        self.code = IndexCode(tag, num_bytes, parameter if tag == _RICE else 0)


def max_indices_num_bytes(count: int, numel: int) -> int:
    """Upper bound of ``choose_code(...).num_bytes`` over all sets of ``count`` indices below ``numel``.

    Codes 3 and 4 are left out: they can only make the fewest bytes fewer.
    """
    bounds = [1 + (numel + 7) // 8]
    bounds += [2 + max_rice_num_bytes(count, numel, parameter) for parameter in range(MAX_PARAMETER + 1)]
    if _width(numel) <= _MAX_WIDTH:
        bounds.append(1 + num_packed_bytes(count, _width(numel)))
    return min(bounds)


def coded_indices(indices: Tensor, numel: int) -> Coded:
    """A tag, the Rice parameter if there is one, the code."""
    return Coded(
        lambda: _pieces(indices.cpu(), numel),
        lambda: max_indices_num_bytes(indices.numel(), numel),
        lambda: choose_code(indices, numel).num_bytes,
    )


def read_indices(reader: Reader, count: int, numel: int) -> Tensor:
    """Read what :func:`coded_indices` wrote: int64 ``[count]``, strictly ascending, below ``numel``."""
    start = reader.position
    tag = reader.byte("index code", _CODES)
    if tag == _FIXED:
        indices = _read_fixed(reader, count, numel)
    elif tag == _RICE:
        indices = reader.coded(rice_decode_prefix, count, numel, reader.byte("Rice parameter"))
    elif tag == _BITMAP:
        indices = _read_bitmap(reader, count, numel)
    elif tag == _EXP_GOLOMB:
        indices = reader.coded(exp_golomb_decode_prefix, count, numel)
    elif tag == _ADAPTIVE:
        indices = reader.coded(adaptive_decode_prefix, count, numel)
    else:
        raise WireError(f"index code {tag} is unknown; 0 to 4 are known")
    if reader.listener is not None:
        reader.field("indices", f"{count} of {numel} entries,", reader.bits_each(start, count, "an index"))
    return indices


def _pieces(indices: Tensor, numel: int) -> Pieces:
    choice = _Choice(indices, numel)
    code, measures = choice.code, choice.measures
    if choice.adaptive is not None:
        return [bytes([_ADAPTIVE]), bytes_of(choice.adaptive)]
    if code.tag == _FIXED:
        width = _width(numel)
        return [bytes([_FIXED]), bytes_of(pack(indices, width)) if width else b""]
    if code.tag == _RICE:
        encoded = encode_gaps(measures.gaps, code.parameter, code.num_bytes - 2)
        return [bytes([_RICE, code.parameter]), bytes_of(encoded)]
    if code.tag == _EXP_GOLOMB:
        return [bytes([_EXP_GOLOMB]), bytes_of(encode_with_orders(measures.gaps, measures.orders, code.num_bytes - 1))]
    kept = np.zeros(numel, np.uint8)
    kept[indices.numpy()] = 1
    return [bytes([_BITMAP]), np.packbits(kept, bitorder="little")]


def _width(numel: int) -> int:
    return max(numel - 1, 0).bit_length()


def _read_fixed(reader: Reader, count: int, numel: int) -> Tensor:
    width = _width(numel)
    if width > _MAX_WIDTH:
        raise WireError(f"index code 0 is for vectors of at most 2**31 entries, {numel} are declared")
    if width == 0:
        return torch.zeros(count, dtype=torch.int64, device=CPU)
    packed = reader.packed(count, width)
    reader.check_padding(count * width, "index")
    indices = unpack(packed, count, width).to(torch.int64)
    numbers = indices.numpy()
    if count and (int(numbers[-1]) >= numel or bool((numbers[1:] <= numbers[:-1]).any())):
        raise WireError(f"indices do not ascend within {numel} entries")
    return indices


def _read_bitmap(reader: Reader, count: int, numel: int) -> Tensor:
    bits = np.unpackbits(reader.take((numel + 7) // 8), bitorder="little")
    indices = torch.from_numpy(np.flatnonzero(bits))
    if len(indices) != count or (count and int(indices[-1]) >= numel):
        raise WireError(f"{len(indices)} bits are set for {count} values, or one after the last entry is")
    return indices
