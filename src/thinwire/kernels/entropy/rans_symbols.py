"""The symbols of rANS, the top bits of packed codes, as bytes; pairs of them; and how often each occurs."""

from typing import Any

import numpy as np

from thinwire.kernels.bitpack.bits import unpack_block
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.hints import prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import empty, seen_as, zeros


@helper
def pair_up(symbols: Any, pairs: Any) -> None:
    """Two symbols of at most four bits to a byte, the first one low."""
    prefer_wide_vectors()
    twos = seen_as(symbols, np.uint16)
    for j in range(pairs.size):
        pairs[j] = np.uint8(twos[j] | twos[j] >> np.uint16(4))


@helper
def _count(symbols: Any, counts: Any) -> None:
    # Four counters a symbol: runs of one symbol would wait for one counter to be written each time.
    fours = symbols.size // 4
    for j in range(fours):
        for part in range(4):
            counts[part, np.uint64(symbols[4 * j + part])] += 1
    for j in range(4 * fours, symbols.size):
        counts[0, np.uint64(symbols[j])] += 1


@helper
def symbols_of(packed: Any, width: int, first: int, symbols: Any, wide: Any) -> None:
    """Fill ``symbols`` from entry ``first``, a multiple of 8, on; ``wide`` is room for codes of more than 8 bits."""
    part = packed[first // 8 * width :]
    if width <= 8:
        unpack_block(part, width, symbols)
        return
    unpack_block(part, width, wide[: symbols.size])
    for j in range(symbols.size):
        symbols[j] = np.uint8(wide[j] >> (width - 8))


@kernel
def count_symbols(packed: Any, width: int, start: int, stop: int, counts: Any) -> None:
    """Add to int64 ``counts`` ``[4, 256]``, whose sum over the rows is what counts."""
    symbols, pairs, wide = empty(2048, np.uint8), empty(1024, np.uint8), empty(2048, np.int32)
    of_pairs = zeros(1024, np.int64).reshape(4, 256)
    for begin in range(start, stop, 2048):
        num = min(2048, stop - begin)
        whole = num // 2 * 2 if width <= 4 else 0
        if width == 4:
            _count(packed[begin // 2 : (begin + whole) // 2], of_pairs)
        else:
            symbols_of(packed, width, begin, symbols[:num], wide)
            if width < 4:
                pair_up(symbols[:whole], pairs[: whole // 2])
                _count(pairs[: whole // 2], of_pairs)
        if width == 4 and num > whole:
            symbols[whole] = packed[(begin + whole) // 2] & np.uint8(15)
        _count(symbols[whole:num], counts)
    for part in range(4):
        for pair in range(256):
            counts[part, pair & 15] += of_pairs[part, pair]
            counts[part, pair >> 4] += of_pairs[part, pair]
