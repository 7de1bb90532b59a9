"""Kind 3: the segments, the number of levels, one scale a segment, and the codes as the payload asks for."""

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.levels import Levels
from thinwire.wire.codes import level_codes_parts, read_level_codes
from thinwire.wire.kind import Kind, Parts, varint
from thinwire.wire.reader import Reader
from thinwire.wire.segments import per_segment, read_segments, segments_parts

_MAX_LEVELS = 2**30 - 1


def _parts(payload: Levels) -> Parts:
    if not 1 <= payload.num_levels <= _MAX_LEVELS:
        raise ConfigError(f"{payload.num_levels} levels were given; 1 to {_MAX_LEVELS} are possible")
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        varint(payload.num_levels),
        per_segment(payload.scales, payload.segments, "scales"),
        *level_codes_parts(payload.codes, payload.numel, payload.num_levels, payload.coding),
    ]


def _read(reader: Reader) -> Levels:
    numel = reader.numel()
    segments = read_segments(reader, "segments", numel)
    num_levels = reader.varint("levels")
    if not 1 <= num_levels <= _MAX_LEVELS:
        raise WireError(f"{num_levels} levels are declared; 1 to {_MAX_LEVELS} are possible")
    scales = reader.tensor("scales", segments.count)
    codes, coding = read_level_codes(reader, numel, num_levels)
    return Levels(codes, scales, num_levels, segments, coding)


LEVELS = Kind(3, "levels", Levels, _parts, _read)
