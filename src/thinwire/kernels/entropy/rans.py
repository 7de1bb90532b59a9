"""Packed codes in about as many bits as their entropy: interleaved rANS with a table of frequencies.

A code of ``w`` bits is a symbol, its ``min(w, 8)`` top bits, and ``r = max(0, w - 8)`` low bits that are kept as they
are. Frequencies are integers with the sum ``4096``; symbol ``s`` owns the slots ``c_s`` to ``c_s + f_s - 1``, where
``c_s`` is the sum of the frequencies before it. The entries are cut into blocks of ``131072`` (:data:`BLOCK`), each
with 32 states of its own; entry ``i`` of a block belongs to state ``i mod 32``. To decode it, with ``x`` the state::

    slot = x mod 4096, its owner is the symbol s
    x = f_s * floor(x / 4096) + slot - c_s
    if x < 2**16: x = 2**16 * x + the next 16-bit word of the block

An encoder runs this backwards from states of ``2**16``, which is where a decoder must end. The states that it ends
with begin the block. The data is: the low bits, packed; the number of words of every block, 32 bits each; then for
every block its states, 32 bits each, and its words. Everything is little-endian.
"""

import math
from typing import Any

import numpy as np
from torch import Tensor

from thinwire.arrays import array_of, empty_array, tensor_of
from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bitpack.bits import num_packed_bytes
from thinwire.kernels.entropy.rans_numba import REASONS, decode_blocks, encode_blocks
from thinwire.kernels.entropy.rans_symbols import count_symbols
from thinwire.kernels.entropy.rans_tables import entries_of, lookup_of
from thinwire.kernels.entropy.rans_torch import rans_counts_torch, rans_decode_torch, rans_encode_torch
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.threads import run, shares

BLOCK = 1 << 17
"""Entries that are decoded on their own."""

LANES = 32
"""States of a block. Their chains of dependent operations are independent of each other."""

PRECISION = 12
"""Frequencies add up to ``2**PRECISION``."""

MAX_SYMBOL_BITS = 8
"""Top bits of a code that are coded; the others are kept as they are."""

_TOTAL = 1 << PRECISION
_BLOCK_NUM_BYTES = 4 + 4 * LANES
"""Bytes of a block beside its words: their number and the states."""

_GROWTH = math.log2(1 + 2 ** (PRECISION - 16))
"""Most bits that one entry can cost beyond ``log2(4096 / f)``, since a state is an integer."""


def rans_counts(packed: Tensor, count: int, width: int) -> Tensor:
    """How often each symbol, the top ``min(width, 8)`` bits of a code, occurs.

    Args:
        packed: uint8, ``count`` codes of ``width`` bits as :func:`thinwire.kernels.bitpack.bits.pack` writes them.
        count: number of codes.
        width: bits a code, 1 to 31.

    Returns:
        int64 ``[2 ** min(width, 8)]`` on the device of ``packed``.

    Example:
        >>> import torch
        >>> rans_counts(torch.tensor([0b10100100], dtype=torch.uint8), 4, 2).tolist()
        [1, 1, 2, 0]
    """
    if not packed.is_cpu:
        return body_for(rans_counts_torch, packed.device)(packed, count, width)
    counts = _counts_of_shares(array_of(packed), width, shares(count, BLOCK))
    return tensor_of(counts.sum(0)[: _num_symbols(width)])


def rans_frequencies(counts: Tensor) -> Tensor:
    """Integers with the sum 4096, about in proportion to the counts, at least 1 where a count is not 0.

    With ``n`` the sum of the counts, each gets ``floor(4096 * count / n)``, at least 1. What is missing to 4096 goes,
    one each, to those with the largest remainders; what is too much is taken, one at a time, from the largest. Of
    equal ones it is always the first.

    Args:
        counts: int64 ``[m]``, 1 to 256 symbols, not negative, together 1 to ``2**48``.

    Returns:
        int64 ``[m]`` on the CPU.

    Raises:
        ConfigError: there is nothing to count.

    Example:
        >>> import torch
        >>> rans_frequencies(torch.tensor([1, 0, 2, 100_000])).tolist()
        [1, 0, 1, 4094]
    """
    numbers = array_of(counts)
    total = int(numbers.sum())
    if not 0 < total <= 2**48 or numbers.size > 1 << MAX_SYMBOL_BITS or int(numbers.min()) < 0:
        raise ConfigError(f"counts are 1 to 256 numbers with a sum of 1 to 2**48, got {numbers.size} with {total}")
    scaled = numbers * _TOTAL
    frequencies = np.where(numbers > 0, np.maximum(scaled // total, 1), 0)
    missing = _TOTAL - int(frequencies.sum())
    if missing > 0:
        frequencies[np.argsort(-(scaled % total), kind="stable")[:missing]] += 1
    for _ in range(-missing):
        frequencies[frequencies.argmax()] -= 1
    return tensor_of(frequencies)


def rans_encode(packed: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
    """The frequencies of packed codes, and the data described above.

    Args:
        packed, count, width: as in :func:`rans_counts`; at least one code.

    Returns:
        :func:`rans_frequencies` of :func:`rans_counts`, and uint8 on the device of ``packed``, whose length is known
        only when it is written.

    Raises:
        ConfigError: there are no codes.

    Example:
        >>> import torch
        >>> frequencies, data = rans_encode(torch.tensor([0b10100100], dtype=torch.uint8), 4, 2)
        >>> frequencies.tolist(), data.numel(), data[4:20].view(torch.uint32).tolist()
        ([1024, 1024, 2048, 0], 132, [262144, 263168, 133120, 133120])
    """
    if not packed.is_cpu:
        frequencies = rans_frequencies(body_for(rans_counts_torch, packed.device)(packed, count, width))
        return frequencies, body_for(rans_encode_torch, packed.device)(packed, count, width, frequencies)
    data = array_of(packed)
    cuts = shares(count, BLOCK)
    counts = _counts_of_shares(data, width, cuts)
    frequencies = rans_frequencies(tensor_of(counts.sum(0)[: _num_symbols(width)]))
    table = _table_of_256(array_of(frequencies))
    outputs = [
        empty_array(_room(counts[part], table, stop - start), np.uint8) for part, (start, stop) in enumerate(cuts)
    ]
    entries = entries_of(table)
    low = np.empty((num_packed_bytes(count, _num_low_bits(width)) + 3) // 4, np.uint32)
    num_words = np.zeros(_num_blocks(count), np.uint32)
    written = run(
        encode_blocks,
        [
            (data, width, start, stop, entries, low, num_words, out)
            for (start, stop), out in zip(cuts, outputs, strict=True)
        ],
    )
    blocks = [out[:size] for out, size in zip(outputs, written, strict=True)]
    low_bytes = low.view(np.uint8)[: num_packed_bytes(count, _num_low_bits(width))]
    return frequencies, tensor_of(np.concatenate([low_bytes, num_words.view(np.uint8), *blocks]))


def rans_decode(data: Tensor, count: int, width: int, frequencies: Tensor) -> Tensor:
    """The packed codes that :func:`rans_encode` was given; ``data`` must hold them and nothing else.

    Args:
        data: uint8.
        count: number of codes. Every :data:`BLOCK` of them take 132 bytes at least, which is checked before anything
            is allocated.
        width: bits a code, 1 to 31.
        frequencies: those that the encoder used.

    Returns:
        uint8 ``[ceil(count * width / 8)]`` on the device of ``data``.

    Raises:
        WireError: data too short or too long, frequencies without the sum 4096, or states that no encoder writes.

    Example:
        >>> import torch
        >>> frequencies, data = rans_encode(torch.tensor([0b10100100], dtype=torch.uint8), 4, 2)
        >>> rans_decode(data, 4, 2, frequencies).tolist()
        [164]
    """
    packed, num_bytes = rans_decode_prefix(data, count, width, frequencies)
    if num_bytes != data.numel():
        raise WireError(f"{count} codes take {num_bytes} bytes, {data.numel()} were given")
    return packed


def rans_decode_prefix(data: Tensor, count: int, width: int, frequencies: Tensor) -> tuple[Tensor, int]:
    """The packed codes at the beginning of ``data``, and how many bytes they take.

    Raises:
        WireError: as :func:`rans_decode`, except that more bytes may follow.

    Example:
        >>> import torch
        >>> frequencies, data = rans_encode(torch.zeros(1, dtype=torch.uint8), 4, 2)
        >>> rans_decode_prefix(torch.cat([data, data]), 4, 2, frequencies)
        (tensor([0], dtype=torch.uint8), 132)
    """
    numbers = array_of(frequencies)
    _check_frequencies(numbers, width)
    host = array_of(data)
    first, starts = _directory(host, count, width)
    if not data.is_cpu:
        return body_for(rans_decode_torch, data.device)(data, count, width, frequencies), int(starts[-1])
    lookup = lookup_of(_table_of_256(numbers))
    words = empty_array((num_packed_bytes(count, width) + 3) // 4, np.uint32)
    results = run(
        decode_blocks,
        [(host, width, start, stop, lookup, starts, words) for start, stop in shares(count, BLOCK)],
    )
    for result in results:
        if result < 0:
            raise WireError(REASONS[result])
    if count * _num_low_bits(width) % 8 and host[first - 1] >> (count * _num_low_bits(width) % 8):
        raise WireError("the bits after the last low bits are not zero")
    return tensor_of(words.view(np.uint8)[: num_packed_bytes(count, width)]), int(starts[-1])


def _num_symbols(width: int) -> int:
    return 1 << min(width, MAX_SYMBOL_BITS)


def _num_low_bits(width: int) -> int:
    return max(0, width - MAX_SYMBOL_BITS)


def _num_blocks(count: int) -> int:
    return (count + BLOCK - 1) // BLOCK


def _table_of_256(frequencies: Any) -> Any:
    return np.pad(frequencies, (0, 256 - frequencies.size))


def _check_frequencies(numbers: Any, width: int) -> None:
    right = 1 <= numbers.size <= _num_symbols(width) and int(numbers.min()) >= 0 and int(numbers.max()) <= _TOTAL
    # Only now: the sum of huge numbers may overflow.
    if not right or int(numbers.sum()) != _TOTAL:
        raise WireError(f"frequencies of at most {_num_symbols(width)} symbols with the sum {_TOTAL} are needed")


def _room(counts: Any, table: Any, count: int) -> int:
    """Bytes that are enough for the states and words of the entries that were counted."""
    # A constant vector's one symbol has the frequency 4096 and costs nothing, exactly.
    costs = np.where((table > 0) & (table < _TOTAL), PRECISION - np.log2(np.maximum(table, 1)) + _GROWTH, 0)
    return 4 * LANES * _num_blocks(count) + int(counts @ costs / 8 * (1 + 1e-9)) + 64


def _directory(host: Any, count: int, width: int) -> tuple[int, Any]:
    """Where the directory begins, and where every block begins and the last one ends."""
    num_blocks = _num_blocks(count)
    first = num_packed_bytes(count, _num_low_bits(width))
    if count < 0 or host.size < first + _BLOCK_NUM_BYTES * num_blocks:
        raise WireError(f"{host.size} bytes cannot hold {count} codes")
    num_words = host[first : first + 4 * num_blocks].copy().view(np.uint32).astype(np.int64)
    starts = np.cumsum(np.concatenate([[first + 4 * num_blocks], 4 * LANES + 2 * num_words]))
    if int(starts[-1]) > host.size:
        raise WireError(f"blocks of {int(starts[-1])} bytes are declared, {host.size} are there")
    return first, starts


def _counts_of_shares(data: Any, width: int, cuts: list[tuple[int, int]]) -> Any:
    """int64 ``[shares, 256]``."""
    counts = np.zeros((len(cuts), 4, 256), np.int64)
    run(count_symbols, [(data, width, start, stop, counts[part]) for part, (start, stop) in enumerate(cuts)])
    return counts.sum(1)
