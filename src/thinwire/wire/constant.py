"""Kind 11: the segments and one value a segment."""

from thinwire.payloads.constant import Constant
from thinwire.wire.kind import Kind, Parts, varint
from thinwire.wire.reader import Reader
from thinwire.wire.segments import per_segment, read_segments, segments_parts


def _parts(payload: Constant) -> Parts:
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        per_segment(payload.values, payload.segments, "values"),
    ]


def _read(reader: Reader) -> Constant:
    segments = read_segments(reader, "segments", reader.numel())
    return Constant(reader.tensor("values", segments.count), segments)


CONSTANT = Kind(11, "constant", Constant, _parts, _read)
