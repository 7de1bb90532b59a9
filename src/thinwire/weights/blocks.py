"""Blocks of words as bytes, each in the shortest of four ways."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import WireError
from thinwire.kernels.entropy.rans import MAX_SYMBOL_BITS, rans_decode_prefix, rans_encode
from thinwire.kernels.entropy.word_steps import Words, count_changed, decode_steps, encode_steps
from thinwire.kernels.jit.threads import count_threads
from thinwire.weights.layout import BLOCK, Block
from thinwire.wire.kind import bytes_of, varint
from thinwire.wire.reader import Reader

_SAME, _STEPS, _CODED, _RAW = range(4)
_NUM_SYMBOLS = 1 << MAX_SYMBOL_BITS
_MAX_THREADS = 8
"""Blocks that are under way together; each takes memory."""


def groups_of(blocks: Sequence[Block]) -> list[list[Block]]:
    """Blocks of one format, in order, as many together as there are threads for.

    Example:
        >>> from thinwire.weights.layout import WeightLayout
        >>> layout = WeightLayout.of({"a": torch.zeros(2, dtype=torch.float16), "b": torch.tensor([True])})
        >>> [len(group) for group in groups_of(layout.blocks)]
        [1, 1]
    """
    size = min(count_threads(_MAX_THREADS * BLOCK), _MAX_THREADS)
    alike: list[list[Block]] = [list(group) for _, group in itertools.groupby(blocks, key=lambda block: block.format)]
    return [group[start : start + size] for group in alike for start in range(0, len(group), size)]


def write_changes(befores: Sequence[Tensor], afters: Sequence[Tensor], words: Words) -> tuple[list[bytes], list[int]]:
    """What makes the words before those after, for each pair of vectors, and how many words change.

    Example:
        >>> before = torch.tensor([0.5, 0.5]).bfloat16().view(torch.int16)
        >>> write_changes([before], [before], words=Words(16, 7, 8))
        ([b'\\x00'], [0])
    """
    counts = count_changed(befores, afters, words)
    moved = [number for number, count in enumerate(counts) if count]
    codes = encode_steps(
        [befores[number] for number in moved], [afters[number] for number in moved], words,
        [counts[number] for number in moved], [bytes_of(afters[number]).size for number in moved],
    )  # fmt: skip
    written = [bytes([_SAME])] * len(counts)
    for number, code in zip(moved, codes, strict=True):
        steps = None if code is None else _sized(_STEPS, counts[number], bytes_of(code).tobytes())
        # Where steps take less than the part of a word that is never coded, nothing is shorter.
        short = steps is not None and len(steps) < afters[number].numel() * max(words.bits - MAX_SYMBOL_BITS, 1) // 8
        written[number] = steps if steps is not None and short else _shorter(steps, write_words(afters[number], words))
    return written, counts


def write_words(vector: Tensor, words: Words) -> bytes:
    """A vector of words by itself.

    Example:
        >>> write_words(torch.tensor([7], dtype=torch.uint8), Words(8, 0, 0))
        b'\\x03\\x07'
    """
    raw = bytes([_RAW]) + bytes_of(vector).tobytes()
    if not vector.numel():
        return raw
    low, high = _halves(vector, words)
    frequencies, data = rans_encode(high, vector.numel(), min(words.bits, 16))
    table = b"".join(map(varint, frequencies.tolist()))
    return _shorter(bytes([_CODED]) + low + table + bytes_of(data).tobytes(), raw)


def read_changes(next_block: Callable[[], Reader], vectors: Sequence[Tensor], words: Words) -> list[Tensor]:
    """Make each vector what its writer had, in place.

    Args:
        next_block: gives a reader at the beginning of each block, in order.
        vectors: the words before.
        words: their format.

    Returns:
        Where the words of each are new: int32, ascending.

    Raises:
        WireError: bytes that :func:`write_changes` does not write; some vectors may be changed already.

    Example:
        >>> from thinwire.weights.messages import reader_of
        >>> vector = torch.tensor([5, 5], dtype=torch.uint8)
        >>> read_changes(lambda: reader_of(b"\\x03\\x05\\x07"), [vector], Words(8, 0, 0)), vector.tolist()
        ([tensor([1], dtype=torch.int32)], [5, 7])
    """
    places = [torch.empty(0, dtype=torch.int32, device=CPU)] * len(vectors)
    waiting, codes, counts = [], [], []
    for number, vector in enumerate(vectors):
        reader = next_block()
        way = reader.byte()
        if way == _STEPS:
            counts.append(reader.varint())
            codes.append(torch.from_numpy(reader.take(reader.varint())))
            waiting.append(number)
        elif way in (_CODED, _RAW):
            read = _read_words(reader, vector, words) if way == _CODED else _read_raw(reader, vector)
            places[number] = (vector != read).nonzero().flatten().to(torch.int32)
            vector.copy_(read)
        elif way != _SAME:
            raise WireError(f"way {way} to write a block is unknown; 0 to 3 are known")
    moved = decode_steps([vectors[number] for number in waiting], codes, words, counts)
    for number, found in zip(waiting, moved, strict=True):
        places[number] = found
    return places


def read_words(reader: Reader, vector: Tensor, words: Words) -> Tensor:
    """:func:`read_changes` of a vector whose words before need not be known: those of a snapshot.

    Raises:
        WireError: bytes that :func:`write_words` does not write; the vector is as it was.
    """
    way = reader.data[reader.position] if reader.num_left else _SAME
    if way not in (_CODED, _RAW):
        raise WireError(f"way {way} to write a block needs the words before, which a snapshot does not")
    return read_changes(lambda: reader, [vector], words)[0]


def _read_raw(reader: Reader, vector: Tensor) -> Tensor:
    return torch.from_numpy(reader.take(vector.numel() * vector.dtype.itemsize).copy()).view(vector.dtype)


def _read_words(reader: Reader, vector: Tensor, words: Words) -> Tensor:
    count = vector.numel()
    low = reader.take(2 * count) if words.bits == 32 else None
    table = [reader.varint() for _ in range(_NUM_SYMBOLS)]
    if max(table) > 1 << 12:
        raise WireError("a frequency is above 4096")
    frequencies = torch.tensor(table, dtype=torch.int64, device=CPU)
    high = reader.coded(rans_decode_prefix, count, min(words.bits, 16), frequencies)
    if low is None:
        return high.view(vector.dtype)
    joined = np.empty((count, 2), np.uint16)
    joined[:, 0] = np.frombuffer(low.tobytes(), np.uint16)
    joined[:, 1] = high.numpy().view(np.uint16)
    return torch.from_numpy(joined.view(np.int32).reshape(-1))


def _halves(vector: Tensor, words: Words) -> tuple[bytes, Tensor]:
    """What is kept as it is, and what is coded: of long words the upper half."""
    if words.bits != 32:
        return b"", vector.view(torch.uint8)
    halves = vector.numpy().view(np.uint16).reshape(-1, 2)
    return halves[:, 0].tobytes(), torch.from_numpy(halves[:, 1].copy().view(np.uint8))


def _shorter(one: bytes | None, other: bytes) -> bytes:
    return one if one is not None and len(one) <= len(other) else other


def _sized(way: int, count: int, data: bytes) -> bytes:
    return bytes([way]) + varint(count) + varint(len(data)) + data
