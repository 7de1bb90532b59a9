"""Grid payloads: the cut, the number of points, where each grid begins, how far its points are apart, the codes."""

import torch

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.grid import Grid
from thinwire.wire.codes import (
    check_coding,
    check_packed,
    codes_num_bytes,
    codes_parts,
    max_codes_num_bytes,
    read_codes,
)
from thinwire.wire.header import Parts, Reader, bytes_of, varint, varint_num_bytes
from thinwire.wire.segments import check_per_segment, read_segments, segments_num_bytes, segments_parts

_MAX_CODES = 2**16


def grid_parts(payload: Grid) -> Parts:
    """What follows the kind byte."""
    _check(payload)
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        varint(payload.num_codes),
        bytes_of(payload.lows),
        bytes_of(payload.steps),
        *codes_parts(payload.codes, payload.numel, payload.num_codes, payload.coding),
    ]


def grid_num_bytes(payload: Grid) -> int:
    """Length of :func:`grid_parts`: at once for packed codes, else about as much work as these."""
    _check(payload)
    return _before(payload) + codes_num_bytes(payload.codes, payload.numel, payload.num_codes, payload.coding)


def max_grid_num_bytes(payload: Grid) -> int:
    """The most that :func:`grid_num_bytes` can be for this shape."""
    _check(payload)
    return _before(payload) + max_codes_num_bytes(payload.numel, payload.num_codes, payload.coding)


def read_grid(reader: Reader) -> Grid:
    """Read what :func:`grid_parts` wrote."""
    numel = reader.numel()
    segments = read_segments(reader, numel)
    num_codes = reader.varint()
    if not 1 <= num_codes <= _MAX_CODES:
        raise WireError(f"a grid of {num_codes} points is declared; 1 to {_MAX_CODES} are possible")
    lows = reader.tensor(torch.float32, segments.count)
    steps = reader.tensor(torch.float32, segments.count)
    codes, coding = read_codes(reader, numel, num_codes)
    return Grid(codes, num_codes, lows, steps, segments, coding)


def _before(payload: Grid) -> int:
    integers = varint_num_bytes(payload.numel) + varint_num_bytes(payload.num_codes)
    return integers + segments_num_bytes(payload.segments) + 8 * payload.segments.count


def _check(payload: Grid) -> None:
    if not 1 <= payload.num_codes <= _MAX_CODES:
        raise ConfigError(f"a grid of {payload.num_codes} points was given; 1 to {_MAX_CODES} are possible")
    check_per_segment(payload.lows, payload.segments, "lows")
    check_per_segment(payload.steps, payload.segments, "steps")
    check_coding(payload.coding)
    check_packed(payload.codes, payload.numel, payload.num_codes)
