"""How a vector is cut into segments: whole, in equal lengths, or in listed sizes."""

import functools

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.layout import Segments
from thinwire.wire.kind import varint
from thinwire.wire.reader import Bytes, Reader

Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]

_WHOLE, _UNIFORM, _SIZES = 0, 1, 2
_FEW = 64
"""Up to so many integers are read one by one sooner than all at once by numpy."""


def segments_parts(segments: Segments) -> list[bytes]:
    """A tag and what it needs; the length of the vector is written before, by the payload."""
    if segments.sizes is not None:
        return [bytes([_SIZES]), varint(len(segments.sizes)), _sizes_code(segments.sizes)]
    if segments.length >= segments.numel:
        return [bytes([_WHOLE])]
    return [bytes([_UNIFORM]), varint(segments.length)]


def read_segments(reader: Reader, name: str, numel: int) -> Segments:
    """Read what :func:`segments_parts` wrote for a vector of ``numel`` entries."""
    tag = reader.byte()
    if tag == _WHOLE:
        reader.field(name, "the whole vector")
        return Segments.whole(numel)
    if tag == _UNIFORM:
        length = reader.varint()
        if length < 1:
            raise WireError("segments of 0 entries are declared; at least 1 is needed")
        if length >= numel:
            raise WireError(f"segments of {length} entries are declared for a vector of {numel}; it is one segment")
        reader.field(name, -(-numel // length), "of", length, "entries")
        return Segments(numel, length=length)
    if tag != _SIZES:
        raise WireError(f"segment code {tag} is unknown; 0, 1 and 2 are known")
    count = reader.varint()
    # The sum may pass 2**63 where each size does not; as Python integers it cannot overflow.
    if count <= _FEW:
        listed = tuple([reader.varint() for _ in range(count)])
    else:
        listed = tuple(_read_varints(reader, count).tolist())
    if sum(listed) != numel:
        raise WireError(f"segments of {sum(listed)} entries together are declared for a vector of {numel}")
    reader.field(name, count, "of listed sizes")
    return Segments(numel, sizes=listed)


def per_segment(numbers: Tensor, segments: Segments, name: str) -> Tensor:
    """The numbers as they are.

    Raises:
        ConfigError: not one f32 number for each segment.
    """
    if numbers.dtype != torch.float32 or numbers.shape != (segments.count,):
        raise ConfigError(f"{segments.count} segments need as many float32 {name}")
    return numbers


@functools.lru_cache(maxsize=32)
def _sizes_code(sizes: tuple[int, ...]) -> bytes:
    # A worker sends the same cut again and again.
    return _varints(np.array(sizes, np.int64)).tobytes()


def _varint_lengths(numbers: Numbers) -> Numbers:
    thresholds = np.array([1 << (7 * length) for length in range(1, 9)], np.int64)
    return np.searchsorted(thresholds, numbers, side="right") + 1


def _varints(numbers: Numbers) -> Bytes:
    lengths = _varint_lengths(numbers)
    starts = np.cumsum(lengths) - lengths
    written = np.empty(int(lengths.sum()), np.uint8)
    for place in range(int(lengths.max(initial=0))):
        has = lengths > place
        more = np.where(lengths[has] > place + 1, 0x80, 0)
        written[starts[has] + place] = (numbers[has] >> (7 * place)) & 0x7F | more
    return written


def _read_varints(reader: Reader, count: int) -> Numbers:
    if count > reader.num_left:
        raise WireError(f"{count} segment sizes are declared, {reader.num_left} bytes are left")
    window = reader.data[reader.position : reader.position + 9 * count]
    ends = np.flatnonzero(window < 0x80)[:count]
    if len(ends) < count:
        raise WireError(f"{count} segment sizes are declared, {len(ends)} are there")
    lengths = np.diff(ends, prepend=-1)
    if lengths.max(initial=0) > 9 or bool(np.any((window[ends] == 0) & (lengths > 1))):
        raise WireError("a segment size has more than 63 bits or is not in its shortest form")
    numbers = np.zeros(count, np.int64)
    for place in range(int(lengths.max(initial=0))):
        has = lengths > place
        byte = window[(ends - lengths + 1)[has] + place].astype(np.int64)
        numbers[has] |= (byte & 0x7F) << (7 * place)
    reader.take(int(lengths.sum()))
    return numbers
