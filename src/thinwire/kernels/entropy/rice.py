"""Ascending indices as gaps in a split-stream Rice code.

With gaps ``g_0 = i_0`` and ``g_j = i_j - i_{j-1} - 1`` and a parameter ``b``, the code is two byte-aligned
streams: the remainders ``g_j mod 2**b``, packed with ``b`` bits each as in :func:`thinwire.kernels.bitpack.bits.pack`,
then the quotients ``g_j >> b`` in unary: as many zero bits, then a one, the lowest bit of a byte first.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, empty_array, tensor_of, to_device
from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bitpack.bits import num_packed_bytes, pack_torch
from thinwire.kernels.entropy.gap_streams import (
    ENDED,
    PADDING,
    REASONS,
    SLACK,
    TOO_LARGE,
    Ranges,
    begins_of,
    chain,
    gap_ranges,
    write_streams,
)
from thinwire.kernels.entropy.rice_numba import (
    check_streams,
    choose_parameter,
    decode_all,
    decode_range,
    encode_range,
    fill_gaps,
    sum_shifted,
)
from thinwire.kernels.flat.checks import check_indices
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.threads import run

MAX_PARAMETER = 40
"""Largest Rice parameter: indices of a vector with ``2**40`` entries need no more."""

_REASONS = {**REASONS, PADDING: "the bits after the last remainder or the last quotient are not zero"}


def rice_parameter(indices: Tensor) -> int:
    """The parameter ``b`` in ``[0, 40]`` with the smallest :func:`rice_num_bytes`; the smallest such.

    In bits the size is ``n * b + n + sum(g_j >> b)``, convex in ``b``; every ``b`` within the two bytes that
    rounding to bytes can add is tried, so the choice is exact.

    Args:
        indices: int64 ``[n]``, strictly ascending, not negative; 0 is returned for ``n = 0``.

    Raises:
        ConfigError: indices that are not as described.

    Example:
        >>> rice_parameter(torch.tensor([100, 250, 300]))
        5
    """
    gaps = gaps_of(indices)
    return int(choose_parameter(gaps.numpy())[0]) if gaps.is_cpu else _parameter_torch(gaps)


def rice_num_bytes(indices: Tensor, parameter: int) -> int:
    """Exact length of :func:`rice_encode` without encoding.

    Example:
        >>> rice_num_bytes(torch.tensor([100, 250, 300]), 6)
        4
    """
    _check_parameter(parameter)
    gaps = gaps_of(indices)
    total = sum_shifted(gaps.numpy(), parameter) if gaps.device.type == "cpu" else (gaps >> parameter).sum()
    return _stream_bytes(indices.numel(), int(total), parameter)


def max_rice_num_bytes(count: int, numel: int, parameter: int) -> int:
    """Upper bound of :func:`rice_num_bytes` over all sets of ``count`` indices below ``numel``.

    The gaps add up to at most ``numel - count``, so the quotients to at most ``(numel - count) >>
    parameter``.

    Example:
        >>> max_rice_num_bytes(3, 301, 6)
        4
    """
    _check_parameter(parameter)
    return _stream_bytes(count, (numel - count) >> parameter if count else 0, parameter)


def rice_encode(indices: Tensor, parameter: int) -> Tensor:
    """Both streams, one after the other.

    Args:
        indices: int64 ``[n]``, strictly ascending, not negative.
        parameter: ``b``, 0 to 40.

    Returns:
        uint8 of length :func:`rice_num_bytes`; empty for ``n = 0``.

    Raises:
        ConfigError: indices or a parameter that are not as described.

    Example:
        >>> rice_encode(torch.tensor([0, 3]), 1).tolist()
        [0, 5]
    """
    _check_parameter(parameter)
    if not indices.is_cpu:
        return body_for(rice_encode_torch, indices.device)(indices, parameter)
    gaps = gaps_of(indices)
    return encode_gaps(
        gaps, parameter, _stream_bytes(gaps.numel(), int(sum_shifted(gaps.numpy(), parameter)), parameter)
    )


def encode_gaps(gaps: Tensor, parameter: int, num_bytes: int) -> Tensor:
    """:func:`rice_encode` of indices whose :func:`gaps_of` and length are at hand (on the CPU).

    Example:
        >>> encode_gaps(torch.tensor([0, 2]), 1, 2).tolist()
        [0, 5]
    """
    array, data = array_of(gaps), np.empty(num_bytes + SLACK, np.uint8)
    write_streams(encode_range, [(array, parameter, *part) for part in gap_ranges(array.size, 1)], data, 0)
    return tensor_of(data[:num_bytes])


def rice_encode_torch(indices: Tensor, parameter: int) -> Tensor:
    """:func:`rice_encode` in torch operations, on any device."""
    gaps = gaps_of(indices)
    ones = (gaps >> parameter).cumsum(0) + torch.arange(gaps.numel(), dtype=torch.int64, device=gaps.device)
    num_bits = int(ones[-1]) + 1 if ones.numel() else 0
    unary = torch.zeros(num_bits, dtype=torch.uint8, device=gaps.device)
    unary[ones] = 1
    remainders = pack_torch(gaps, parameter) if parameter else unary.new_empty(0)
    return torch.cat([remainders, pack_torch(unary, 1)])


def rice_decode(data: Tensor, count: int, numel: int, parameter: int) -> Tensor:
    """The indices that :func:`rice_encode` wrote; ``data`` must hold them and nothing else.

    Args:
        data: uint8.
        count: number of indices, checked against the length of ``data`` before anything is allocated.
        numel: every index must be below; at most ``2**62``.
        parameter: ``b``, 0 to 40.

    Returns:
        int64 ``[count]``, strictly ascending, on the device of ``data``.

    Raises:
        WireError: streams too short or too long, an index not below ``numel``, padding bits that are not
            zero, or
            numbers out of range.

    Example:
        >>> rice_decode(torch.tensor([0, 5], dtype=torch.uint8), 2, 4, 1).tolist()
        [0, 3]
    """
    indices, num_bytes = rice_decode_prefix(data, count, numel, parameter)
    if num_bytes != data.numel():
        raise WireError(f"{count} indices take {num_bytes} bytes, {data.numel()} were given")
    return indices


def rice_decode_prefix(data: Tensor, count: int, numel: int, parameter: int) -> tuple[Tensor, int]:
    """The indices at the beginning of ``data``, and how many bytes they take: the code ends itself.

    Raises:
        WireError: as :func:`rice_decode`, except that more bytes may follow.

    Example:
        >>> indices, num_bytes = rice_decode_prefix(torch.tensor([0, 5, 77], dtype=torch.uint8), 2, 4, 1)
        >>> indices.tolist(), num_bytes
        ([0, 3], 2)
    """
    if not 0 <= parameter <= MAX_PARAMETER:
        raise WireError(f"a Rice parameter of {parameter} was given; it must be 0 to {MAX_PARAMETER}")
    num_remainder_bytes = num_packed_bytes(count, parameter)
    if not 0 <= count <= min(numel, 8 * (data.numel() - num_remainder_bytes)) or numel > 2**62:
        raise WireError(f"{data.numel()} bytes cannot hold {count} indices below {numel}")
    host, indices = array_of(data), empty_array(count, np.int64)
    ranges = gap_ranges(count, 8)
    if len(ranges) == 1:
        end = int(decode_all(host, num_remainder_bytes, numel, parameter, indices))
    else:
        end = _decode_shares(host[:num_remainder_bytes], host[num_remainder_bytes:], numel, parameter, ranges, indices)
    if end < 0:
        raise WireError(_REASONS[end])
    return to_device(tensor_of(indices), data.device), num_remainder_bytes + (end + 7) // 8


def _decode_shares(remainders: Any, unary: Any, numel: int, parameter: int, ranges: Ranges, indices: Any) -> int:
    """:func:`decode_all` on several threads."""
    begins = begins_of(unary, ranges)
    if begins is None:
        return ENDED
    end = begins.pop()
    wrong = int(check_streams(remainders, unary, indices.size, numel, parameter, end))
    if wrong:
        return wrong
    shared = (remainders, unary)
    calls = [(*shared, begin, numel, parameter, *part, indices) for begin, part in zip(begins, ranges, strict=True)]
    return end if all(run(decode_range, calls)) and chain(indices, ranges, numel) else TOO_LARGE


def _check_parameter(parameter: int) -> None:
    if not 0 <= parameter <= MAX_PARAMETER:
        raise ConfigError(f"a Rice parameter of {parameter} was given; it must be 0 to {MAX_PARAMETER}")


def _stream_bytes(count: int, quotients: int, parameter: int) -> int:
    return num_packed_bytes(count, parameter) + (count + quotients + 7) // 8


def gaps_of(indices: Tensor) -> Tensor:
    """The gaps ``g_j``, on the device of the indices.

    Raises:
        ConfigError: indices that are not a vector of int64, strictly ascending from 0 or more.

    Example:
        >>> gaps_of(torch.tensor([100, 250, 300])).tolist()
        [100, 149, 49]
    """
    check_indices(indices)
    if indices.device.type == "cpu":
        gaps = empty_array(indices.numel(), np.int64)
        smallest = int(fill_gaps(indices.contiguous().numpy(), gaps))
        result = tensor_of(gaps)
    else:
        result = indices.diff(prepend=indices.new_full((1,), -1)) - 1
        smallest = int(result.min()) if result.numel() else 0
    if smallest < 0:
        raise ConfigError("indices must be strictly ascending and not negative")
    return result


def _parameter_torch(gaps: Tensor) -> int:
    sums = [int((gaps >> parameter).sum()) for parameter in range(MAX_PARAMETER + 1)]
    sizes = [_stream_bytes(gaps.numel(), total, parameter) for parameter, total in enumerate(sums)]
    return sizes.index(min(sizes))
