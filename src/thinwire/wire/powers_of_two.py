"""Power payloads: the cut, the number of exponents, one scale a segment, the packed codes."""

import torch

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.powers_of_two import PowersOfTwo
from thinwire.wire.codes import check_packed, read_packed
from thinwire.wire.header import Parts, Reader, bytes_of, varint, varint_num_bytes
from thinwire.wire.segments import check_per_segment, read_segments, segments_num_bytes, segments_parts

_MAX_LEVELS = 127


def powers_parts(payload: PowersOfTwo) -> Parts:
    """What follows the kind byte."""
    _check(payload)
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        varint(payload.num_levels),
        bytes_of(payload.scales),
        bytes_of(payload.codes),
    ]


def powers_num_bytes(payload: PowersOfTwo) -> int:
    """Length of :func:`powers_parts`, without making them."""
    _check(payload)
    integers = varint_num_bytes(payload.numel) + varint_num_bytes(payload.num_levels)
    return integers + segments_num_bytes(payload.segments) + 4 * payload.scales.numel() + payload.codes.numel()


def read_powers(reader: Reader) -> PowersOfTwo:
    """Read what :func:`powers_parts` wrote."""
    numel = reader.numel()
    segments = read_segments(reader, numel)
    num_levels = reader.varint()
    if not 1 <= num_levels <= _MAX_LEVELS:
        raise WireError(f"{num_levels} powers are declared; 1 to {_MAX_LEVELS} are possible")
    scales = reader.tensor(torch.float32, segments.count)
    return PowersOfTwo(read_packed(reader, numel, 2 * num_levels + 1), num_levels, scales, segments)


def _check(payload: PowersOfTwo) -> None:
    if not 1 <= payload.num_levels <= _MAX_LEVELS:
        raise ConfigError(f"{payload.num_levels} powers were given; 1 to {_MAX_LEVELS} are possible")
    check_per_segment(payload.scales, payload.segments, "scales")
    check_packed(payload.codes, payload.numel, 2 * payload.num_levels + 1)
