"""Kind 10: the segments, the key, the values as a body of their own, and how many each segment keeps."""

import numpy as np

from thinwire.errors import ConfigError, WireError
from thinwire.layout import Segments
from thinwire.payloads.seeded_sparse import SeededSparse
from thinwire.wire.kind import Kind, Parts, key_bytes, varint
from thinwire.wire.reader import Reader
from thinwire.wire.segments import Numbers, read_segments, segments_parts

_MAX_SEGMENTS = 2**28
_MAX_KEPT = 2**32


def _parts(payload: SeededSparse) -> Parts:
    if payload.kept.numel != payload.values.numel:
        raise ConfigError(f"a cut of {payload.kept.numel} entries was given for {payload.values.numel} values")
    reason = _what_is_wrong(payload.kept, payload.segments)
    if reason:
        raise ConfigError(reason)
    return [
        varint(payload.numel),
        *segments_parts(payload.segments),
        key_bytes(payload.key),
        payload.values,
        *segments_parts(payload.kept),
    ]


def _read(reader: Reader) -> SeededSparse:
    numel = reader.numel()
    segments = read_segments(reader, "segments", numel)
    key = reader.key()
    values = reader.body("values")
    if values.numel > numel:
        raise WireError(f"{values.numel} values are declared for a vector of {numel} entries")
    kept = read_segments(reader, "kept", values.numel)
    reason = _what_is_wrong(kept, segments)
    if reason:
        raise WireError(reason)
    return SeededSparse(values, kept, key, segments)


def _what_is_wrong(kept: Segments, segments: Segments) -> str:
    """Nothing, mostly. Takes memory only in proportion to sizes that are listed."""
    if kept.count != segments.count:
        return f"{kept.count} segments of values belong to {segments.count} segments of a vector"
    if kept.count > _MAX_SEGMENTS:
        return f"values are drawn from {kept.count} segments; at most 2**28 are possible"
    if kept.count == 0:
        return ""
    if kept.sizes is None and segments.sizes is None:
        # All but the last are of one size.
        places = [0, kept.count - 1]
        most, room = ([_size(cut, place) for place in places] for cut in (kept, segments))
        is_small = all(some <= all_of_them for some, all_of_them in zip(most, room, strict=True))
        largest = max(most)
    else:
        sizes = _sizes(kept)
        is_small = bool((sizes <= _sizes(segments)).all())
        largest = int(sizes.max())
    if not is_small:
        return "a segment keeps more values than it has entries"
    return f"{largest} values are drawn from one segment; at most 2**32 are possible" if largest > _MAX_KEPT else ""


def _size(cut: Segments, place: int) -> int:
    """Size of a segment of a uniform cut."""
    return min(cut.length, cut.numel - place * cut.length)


def _sizes(cut: Segments) -> Numbers:
    if cut.sizes is not None:
        return np.array(cut.sizes, np.int64)
    sizes = np.full(cut.count, cut.length, np.int64)
    sizes[-1] = _size(cut, cut.count - 1)
    return sizes


SEEDED_SPARSE = Kind(10, "seeded sparse", SeededSparse, _parts, _read)
