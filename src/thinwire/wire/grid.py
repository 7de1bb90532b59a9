"""Kind 5: the segments, the number of points, where each grid begins, how far its points are apart, the codes."""

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.grid import Grid
from thinwire.wire.codes import codes_parts, read_codes
from thinwire.wire.kind import Kind, Parts, varint
from thinwire.wire.reader import Reader
from thinwire.wire.segments import per_segment, read_segments, segments_parts

_MAX_CODES = 2**16


def _parts(payload: Grid) -> Parts:
    if not 1 <= payload.num_codes <= _MAX_CODES:
        raise ConfigError(f"a grid of {payload.num_codes} points was given; 1 to {_MAX_CODES} are possible")
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        varint(payload.num_codes),
        per_segment(payload.lows, payload.segments, "lows"),
        per_segment(payload.steps, payload.segments, "steps"),
        *codes_parts(payload.codes, payload.numel, payload.num_codes, payload.coding),
    ]


def _read(reader: Reader) -> Grid:
    numel = reader.numel()
    segments = read_segments(reader, "segments", numel)
    num_codes = reader.varint("points")
    if not 1 <= num_codes <= _MAX_CODES:
        raise WireError(f"a grid of {num_codes} points is declared; 1 to {_MAX_CODES} are possible")
    lows = reader.tensor("lows", segments.count)
    steps = reader.tensor("steps", segments.count)
    codes, coding = read_codes(reader, numel, num_codes)
    return Grid(codes, num_codes, lows, steps, segments, coding)


GRID = Kind(5, "grid", Grid, _parts, _read)
