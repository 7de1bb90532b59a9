"""Kind 4: the segments, one scale a segment, one bit an entry."""

import torch

from thinwire.errors import ConfigError
from thinwire.payloads.signs import Signs
from thinwire.wire.kind import Kind, Parts, varint
from thinwire.wire.reader import Reader
from thinwire.wire.segments import per_segment, read_segments, segments_parts


def _parts(payload: Signs) -> Parts:
    if payload.bits.dtype != torch.uint8 or payload.bits.shape != ((payload.numel + 7) // 8,):
        raise ConfigError(f"{payload.numel} signs take {(payload.numel + 7) // 8} bytes of uint8")
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        per_segment(payload.scales, payload.segments, "scales"),
        payload.bits,
    ]


def _read(reader: Reader) -> Signs:
    numel = reader.numel()
    segments = read_segments(reader, "segments", numel)
    scales = reader.tensor("scales", segments.count)
    bits = reader.packed(numel, 1)
    reader.field("signs", numel, "bits")
    reader.check_padding(numel, "sign")
    return Signs(bits, scales, segments)


SIGNS = Kind(4, "signs", Signs, _parts, _read)
