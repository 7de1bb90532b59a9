"""Level payloads: the cut, the number of levels, one scale a segment, packed codes."""

import torch

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bits import largest_code, num_packed_bytes
from thinwire.payloads.levels import Levels
from thinwire.wire.header import Bytes, Reader, bytes_of, varint, varint_num_bytes
from thinwire.wire.segments import read_segments, segments_num_bytes, segments_parts

_MAX_LEVELS = 2**30 - 1


def levels_parts(payload: Levels) -> list[bytes | Bytes]:
    """What follows the kind byte."""
    _check(payload)
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        varint(payload.num_levels),
        bytes_of(payload.scales),
        bytes_of(payload.codes),
    ]


def levels_num_bytes(payload: Levels) -> int:
    """Length of :func:`levels_parts`, without making them."""
    _check(payload)
    integers = varint_num_bytes(payload.numel) + varint_num_bytes(payload.num_levels)
    return integers + segments_num_bytes(payload.segments) + 4 * payload.scales.numel() + payload.codes.numel()


def read_levels(reader: Reader) -> Levels:
    """Read what :func:`levels_parts` wrote."""
    numel = reader.numel()
    segments = read_segments(reader, numel)
    num_levels = reader.varint()
    if not 1 <= num_levels <= _MAX_LEVELS:
        raise WireError(f"{num_levels} levels are declared; 1 to {_MAX_LEVELS} are possible")
    width = (2 * num_levels).bit_length()
    scales = reader.tensor(torch.float32, segments.count)
    codes = reader.tensor(torch.uint8, num_packed_bytes(numel, width))
    if largest_code(codes, numel, width) > 2 * num_levels:
        raise WireError(f"a code is above {2 * num_levels}, the largest for {num_levels} levels")
    if numel * width % 8 and int(codes[-1]) >> (numel * width % 8):
        raise WireError("the bits after the last code are not zero")
    return Levels(codes, scales, num_levels, segments)


def _check(payload: Levels) -> None:
    if not 1 <= payload.num_levels <= _MAX_LEVELS:
        raise ConfigError(f"{payload.num_levels} levels were given; 1 to {_MAX_LEVELS} are possible")
    if payload.scales.dtype != torch.float32 or payload.scales.shape != (payload.segments.count,):
        raise ConfigError(f"{payload.segments.count} segments need as many float32 scales")
    num_bytes = num_packed_bytes(payload.numel, payload.width)
    if payload.codes.dtype != torch.uint8 or payload.codes.shape != (num_bytes,):
        raise ConfigError(f"{payload.numel} codes of {payload.width} bits take {num_bytes} bytes of uint8")
