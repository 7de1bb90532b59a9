"""Kind 7: the segments, the number of powers, one scale a segment, the packed codes."""

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.powers_of_two import PowersOfTwo
from thinwire.wire.codes import packed_part, read_packed
from thinwire.wire.kind import Kind, Parts, varint
from thinwire.wire.reader import Reader
from thinwire.wire.segments import per_segment, read_segments, segments_parts

_MAX_LEVELS = 127


def _parts(payload: PowersOfTwo) -> Parts:
    if not 1 <= payload.num_levels <= _MAX_LEVELS:
        raise ConfigError(f"{payload.num_levels} powers were given; 1 to {_MAX_LEVELS} are possible")
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        varint(payload.num_levels),
        per_segment(payload.scales, payload.segments, "scales"),
        packed_part(payload.codes, payload.numel, 2 * payload.num_levels + 1),
    ]


def _read(reader: Reader) -> PowersOfTwo:
    numel = reader.numel()
    segments = read_segments(reader, "segments", numel)
    num_levels = reader.varint("powers")
    if not 1 <= num_levels <= _MAX_LEVELS:
        raise WireError(f"{num_levels} powers are declared; 1 to {_MAX_LEVELS} are possible")
    scales = reader.tensor("scales", segments.count)
    return PowersOfTwo(read_packed(reader, numel, 2 * num_levels + 1), num_levels, scales, segments)


POWERS_OF_TWO = Kind(7, "powers of two", PowersOfTwo, _parts, _read)
