"""The loops of :mod:`thinwire.kernels.entropy.rans`: counting, encoding and decoding entries ``start`` to ``stop``.

``start`` is a multiple of a block's length. A block is handled in tiles of 2048 entries, which stay in the cache while
they are unpacked, coded and packed, and a tile in rows of 32, an entry of each state.
"""

from typing import Any

import numpy as np

from thinwire.kernels.bitpack.bits import pack_block, unpack_block
from thinwire.kernels.entropy.rans_simd import has_vectors, pull_vectors, push_vectors
from thinwire.kernels.jit.compiling import helper, intrinsic, kernel, types
from thinwire.kernels.jit.hints import prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import copy_to, empty, seen_as, zeros

ENDED, LEFT, NOT_CANONICAL = -1, -2, -3
REASONS = {
    ENDED: "a block goes on past the end of its words",
    LEFT: "words are left after the last entry of a block",
    NOT_CANONICAL: "a state is below 2**16 at the beginning of a block, or not 2**16 at its end",
}
"""Why :func:`decode_blocks` refuses."""


def _load_half(typing_context: Any, data: Any, position: Any) -> Any:
    """The two bytes of ``data`` from ``position`` on as one uint16; both must lie inside."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.gep(array.data, [arguments[1]])
        return builder.load(builder.bitcast(address, ir.IntType(16).as_pointer()), align=1)

    return types.uint16(data, types.intp), generate


load_half: Any = intrinsic(_load_half)


@kernel
def count_symbols(packed: Any, width: int, start: int, stop: int, counts: Any) -> None:
    """Add to int64 ``counts`` ``[4, 256]``, whose sum over the rows is what counts."""
    # Four counters a symbol: runs of one symbol would wait for one counter to be written each time.
    shift = max(0, width - 8)
    codes = empty(2048, np.int32)
    for begin in range(start, stop, 2048):
        num = min(2048, stop - begin)
        unpack_block(packed[begin // 8 * width :], width, codes[:num])
        for j in range(num // 4):
            for part in range(4):
                counts[part, np.uint64(codes[4 * j + part] >> shift)] += 1
        for j in range(num // 4 * 4, num):
            counts[0, np.uint64(codes[j] >> shift)] += 1


@helper
def _push(symbols: Any, num: int, states: Any, spans: Any, multipliers: Any, words: Any, position: Any) -> Any:
    """Encode entry ``l`` into state ``l``, the last first; words are written before ``position``."""
    # Indices are unsigned: Numba takes negative ones from the end, which costs a comparison each.
    for back in range(num):
        last = np.uint64(num - 1 - back)
        state = states[last]
        frequency = spans[np.uint64(symbols[last])] & np.uint32(0xFFFF)
        words[position - np.uint64(1)] = np.uint16(state)
        full = np.uint32((state >> np.uint32(20)) >= frequency)
        position -= np.uint64(full)
        states[last] = state >> np.uint32(full << np.uint32(4))
    for lane in range(num):
        symbol = np.uint64(symbols[lane])
        state = states[lane]
        span = spans[symbol]
        quotient = np.uint32((np.uint64(state) * multipliers[symbol]) >> np.uint64(44))
        rest = np.uint32(np.uint32(4096) - (span & np.uint32(0xFFFF)))
        states[lane] = np.uint32(state + np.uint32(quotient * rest) + (span >> np.uint32(16)))
    return position


@kernel
def encode_blocks(
    packed: Any,
    width: int,
    start: int,
    stop: int,
    multipliers: Any,
    spans: Any,
    low: Any,
    num_words: Any,
    out: Any,
) -> Any:
    """Write states and words of every block to ``out``, one after another; how many bytes that are."""
    prefer_wide_vectors()
    shift = max(0, width - 8)
    codes = empty(2048, np.int32)
    states = empty(32, np.uint32)
    # An entry makes one word at most.
    words = empty(min(1 << 17, stop - start), np.uint16)
    written = np.int64(0)
    for first in range(start, stop, 1 << 17):
        last = min(first + (1 << 17), stop)
        states[:] = np.uint32(1 << 16)
        position = np.uint64(words.size)
        for tile in range((last - first + 2047) // 2048 - 1, -1, -1):
            begin = first + 2048 * tile
            num = min(2048, last - begin)
            unpack_block(packed[begin // 8 * width :], width, codes[:num])
            if shift:
                # Packing takes the low bits of what it is given.
                pack_block(codes[:num], shift, low[begin // 32 * shift :])
                for j in range(num):
                    codes[j] >>= shift
            if num % 32:
                row = codes[num // 32 * 32 :]
                position = _push(row, num % 32, states, spans, multipliers, words, position)
            for j in range(num // 32 - 1, -1, -1):
                if has_vectors():
                    position = np.uint64(
                        push_vectors(codes, 32 * j, states, spans, multipliers, words, np.int64(position))
                    )
                else:
                    row = codes[32 * j : 32 * j + 32]
                    position = _push(row, 32, states, spans, multipliers, words, position)
        copy_to(out[written : written + 128], seen_as(states, np.uint8))
        written += 128
        block = words[np.int64(position) :]
        num_words[first >> 17] = block.size
        copy_to(out[written : written + 2 * block.size], seen_as(block, np.uint8))
        written += 2 * block.size
    return written


@helper
def _pull(symbols: Any, num: int, states: Any, lookup: Any, data: Any, position: Any) -> Any:
    """Decode entry ``l`` from state ``l``; the next ``num`` words must lie inside ``data``, needed or not."""
    for lane in range(num):
        state = states[lane]
        entry = lookup[np.uint64(state & np.uint32(4095))]
        symbols[lane] = np.int32(entry >> np.uint32(24))
        frequency = np.uint32((entry & np.uint32(4095)) + np.uint32(1))
        place = (entry >> np.uint32(12)) & np.uint32(4095)
        state = np.uint32(np.uint32(frequency * np.uint32(state >> np.uint32(12))) + place)
        more = state < np.uint32(1 << 16)
        longer = np.uint32((state << np.uint32(16)) | np.uint32(load_half(data, np.int64(position))))
        position += np.uint64(more) << np.uint64(1)
        states[lane] = longer if more else state
    return position


@kernel
def decode_blocks(
    data: Any,
    width: int,
    start: int,
    stop: int,
    lookup: Any,
    starts: Any,
    num_words: Any,
    packed: Any,
) -> Any:
    """Write the packed codes of every block to uint32 ``packed``; 0, or a negative key of :data:`REASONS`."""
    prefer_wide_vectors()
    shift = max(0, width - 8)
    codes = empty(2048, np.int32)
    lows = empty(2048, np.int32)
    states = empty(32, np.uint32)
    # The last words of a block, with room after them for a row that asks for more.
    ending = zeros(256, np.uint8)
    for first in range(start, stop, 1 << 17):
        last = min(first + (1 << 17), stop)
        position = np.int64(starts[first >> 17])
        copy_to(seen_as(states, np.uint8), data[position : position + 128])
        for lane in range(32):
            if states[lane] < np.uint32(1 << 16):
                return NOT_CANONICAL
        position += 128
        end = position + 2 * num_words[first >> 17]
        for begin in range(first, last, 2048):
            num = min(2048, last - begin)
            for j in range(0, num, 32):
                row = codes[j : min(j + 32, num)]
                if row.size == 32 and position + 64 <= end:
                    if has_vectors():
                        position = pull_vectors(codes, j, states, lookup, data, position)
                    else:
                        position = np.int64(_pull(row, 32, states, lookup, data, np.uint64(position)))
                else:
                    num_left = min(end - position, 64)
                    copy_to(ending[:num_left], data[position : position + num_left])
                    num_read = np.int64(_pull(row, row.size, states, lookup, ending, np.uint64(0)))
                    if num_read > num_left:
                        return ENDED
                    position += num_read
            if shift:
                unpack_block(data[begin // 8 * shift :], shift, lows[:num])
                for j in range(num):
                    codes[j] = codes[j] << shift | lows[j]
            pack_block(codes[:num], width, packed[begin // 32 * width :])
        if position != end:
            return LEFT
        for lane in range(32):
            if states[lane] != np.uint32(1 << 16):
                return NOT_CANONICAL
    return 0
