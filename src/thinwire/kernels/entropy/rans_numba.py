"""The loops of :mod:`thinwire.kernels.entropy.rans`: encoding and decoding entries ``start`` to ``stop``.

``start`` is a multiple of a block's length. A block is handled in tiles of 2048 entries, which stay in the cache while
they are unpacked, coded and packed, and a tile in rows of 32, an entry of each state. Symbols are bytes, or two to a
byte where they have four bits at most: a table of pairs then gives what two states need in one step.
"""

from typing import Any

import numpy as np

from thinwire.kernels.bitpack.bits import pack_block, unpack_block
from thinwire.kernels.entropy.rans_simd import has_vectors, pull_rows, pull_rows_of_two, push_rows
from thinwire.kernels.entropy.rans_symbols import pair_up, symbols_of
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


@helper
def _push(symbols: Any, num: int, states: Any, table: Any, words: Any, position: Any) -> Any:
    """Encode entry ``l`` into state ``l``, the last first; words are written before ``position``."""
    raised = table[table.size - 1]
    # Indices are unsigned: Numba takes negative ones from the end, which costs a comparison each.
    for back in range(num):
        last = np.uint64(num - 1 - back)
        state = states[last]
        rest = (table[np.uint64(symbols[last]) << np.uint64(1)] >> np.uint32(13)) & np.uint32(4095)
        words[position - np.uint64(1)] = np.uint16(state)
        full = np.uint32(np.uint32((state >> np.uint32(20)) + rest) > np.uint32(4095))
        position -= np.uint64(full)
        states[last] = state >> np.uint32(full << np.uint32(4))
    for lane in range(num):
        symbol = np.uint64(symbols[lane]) << np.uint64(1)
        state = states[lane]
        span = table[symbol]
        one_more = np.uint64(state + np.uint32(span == raised))
        high = np.uint32((one_more * np.uint64(table[symbol | np.uint64(1)])) >> np.uint64(32))
        quotient = np.uint32(high >> (span >> np.uint32(28)))
        rest = (span >> np.uint32(13)) & np.uint32(4095)
        states[lane] = np.uint32(state + np.uint32(quotient * rest) + (span & np.uint32(8191)))
    return position


@helper
def _entries_of_pairs(table: Any, pairs: Any) -> None:
    """For every byte of two symbols the first words of both their entries, then the second words."""
    for pair in range(256):
        for part in range(2):
            symbol = pair >> 4 if part else pair & 15
            pairs[4 * pair + part] = table[2 * symbol]
            pairs[4 * pair + 2 + part] = table[2 * symbol + 1]


@helper
def _push_tile(
    packed: Any, width: int, first: int, symbols: Any, states: Any, tables: Any, words: Any, position: Any
) -> Any:
    """Encode a tile whose symbols are there, the last row first; ``tables`` are those of one and of two symbols."""
    num_rows = symbols.size // 32
    raised = tables[0][tables[0].size - 1]
    if symbols.size % 32:
        position = _push(symbols[32 * num_rows :], symbols.size % 32, states, tables[0], words, position)
    if not has_vectors():
        for row in range(num_rows - 1, -1, -1):
            position = _push(symbols[32 * row : 32 * row + 32], 32, states, tables[0], words, position)
    elif width == 4:
        return np.uint64(
            push_rows(packed[first // 2 :], True, num_rows, states, tables[1], raised, words, np.int64(position))
        )
    elif width < 4:
        pairs = empty(1024, np.uint8)
        pair_up(symbols[: 32 * num_rows], pairs[: 16 * num_rows])
        return np.uint64(push_rows(pairs, True, num_rows, states, tables[1], raised, words, np.int64(position)))
    else:
        return np.uint64(push_rows(symbols, False, num_rows, states, tables[0], raised, words, np.int64(position)))
    return position


@kernel
def encode_blocks(
    packed: Any, width: int, start: int, stop: int, table: Any, low: Any, num_words: Any, out: Any
) -> Any:
    """Write states and words of every block to ``out``, one after another; how many bytes that are."""
    prefer_wide_vectors()
    shift = max(0, width - 8)
    symbols, wide = empty(2048, np.uint8), empty(2048, np.int32)
    states = empty(32, np.uint32)
    of_pairs = empty(1024, np.uint32)
    _entries_of_pairs(table, of_pairs)
    # An entry makes one word at most; where one is written, seven before it are, too.
    words = empty(min(1 << 17, stop - start) + 8, np.uint16)
    written = np.int64(0)
    for first in range(start, stop, 1 << 17):
        last = min(first + (1 << 17), stop)
        states[:] = np.uint32(1 << 16)
        position = np.uint64(words.size)
        for tile in range((last - first + 2047) // 2048 - 1, -1, -1):
            begin = first + 2048 * tile
            num = min(2048, last - begin)
            if not (has_vectors() and width == 4 and num % 32 == 0):
                symbols_of(packed, width, begin, symbols[:num], wide)
            if shift:
                # Packing takes the low bits of what it is given.
                pack_block(wide[:num], shift, low[begin // 32 * shift :])
            position = _push_tile(packed, width, begin, symbols[:num], states, (table, of_pairs), words, position)
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
        symbols[lane] = np.uint8(entry >> np.uint32(24))
        frequency = np.uint32((entry & np.uint32(4095)) + np.uint32(1))
        place = (entry >> np.uint32(12)) & np.uint32(4095)
        state = np.uint32(np.uint32(frequency * np.uint32(state >> np.uint32(12))) + place)
        more = state < np.uint32(1 << 16)
        longer = np.uint32((state << np.uint32(16)) | np.uint32(load_half(data, np.int64(position))))
        position += np.uint64(more) << np.uint64(1)
        states[lane] = longer if more else state
    return position


@helper
def _pull_rows(symbols: Any, num: int, num_blocks: int, states: Any, lookup: Any, data: Any, places: Any) -> Any:
    """Decode ``num`` entries of one or two blocks, as :func:`pull_rows` says; whether all words were there."""
    num_rows = num // 32
    if has_vectors():
        if num_blocks == 2:
            return pull_rows_of_two(symbols, num_rows, states, lookup, data, places) == num_rows
        done = pull_rows(symbols, num_rows, states, lookup, data, places)
        if done < num_rows:
            return False
        symbols, num = symbols[32 * num_rows :], num % 32
    for block in range(num_blocks):
        own, position = states[32 * block : 32 * block + 32], np.uint64(places[2 * block])
        for first in range(2048 * block, 2048 * block + num, 32):
            if np.int64(position) > places[2 * block + 1]:
                return False
            last = min(first + 32, 2048 * block + num)
            position = _pull(symbols[first:last], last - first, own, lookup, data, position)
        places[2 * block] = np.int64(position)
    return True


@helper
def _write_symbols(symbols: Any, data: Any, width: int, first: int, lows: Any, packed: Any) -> None:
    """Pack symbols, with their low bits if there are any, to where entry ``first`` begins."""
    shift = max(0, width - 8)
    target = packed[first // 32 * width :]
    if not shift:
        pack_block(symbols, width, target)
        return
    unpack_block(data[first // 8 * shift :], shift, lows[: symbols.size])
    for j in range(symbols.size):
        lows[j] |= np.int32(symbols[j]) << shift
    pack_block(lows[: symbols.size], width, target)


@helper
def _pull_blocks(
    data: Any, width: int, first: int, count: int, lookup: Any, source: Any, places: Any, packed: Any
) -> Any:
    """Write the packed codes of one or two blocks of ``count`` entries each; 0, or why not.

    ``places`` are where their states begin and their words end in ``source``, which goes on for 64 bytes after that.
    """
    num_blocks = places.size // 2
    symbols = empty(4096, np.uint8)
    lows = empty(2048, np.int32)
    states = empty(64, np.uint32)
    for block in range(num_blocks):
        begin = places[2 * block]
        copy_to(seen_as(states, np.uint8)[128 * block : 128 * block + 128], source[begin : begin + 128])
        places[2 * block] = begin + 128
    for lane in range(32 * num_blocks):
        if states[lane] < np.uint32(1 << 16):
            return NOT_CANONICAL
    for begin in range(0, count, 2048):
        num = min(2048, count - begin)
        if not _pull_rows(symbols, num, num_blocks, states, lookup, source, places):
            return ENDED
        for block in range(num_blocks):
            own = symbols[2048 * block : 2048 * block + num]
            _write_symbols(own, data, width, first + (block << 17) + begin, lows, packed)
    for block in range(num_blocks):
        if places[2 * block] != places[2 * block + 1]:
            return ENDED if places[2 * block] > places[2 * block + 1] else LEFT
    for lane in range(32 * num_blocks):
        if states[lane] != np.uint32(1 << 16):
            return NOT_CANONICAL
    return 0


@kernel
def decode_blocks(
    data: Any,
    width: int,
    start: int,
    stop: int,
    lookup: Any,
    starts: Any,
    packed: Any,
) -> Any:
    """Write the packed codes of every block to uint32 ``packed``; 0, or a negative key of :data:`REASONS`."""
    prefer_wide_vectors()
    places = empty(4, np.int64)
    first, reason = start, np.int64(0)
    while first < stop and reason == 0:
        block = first >> 17
        places[0], places[1] = starts[block], starts[block + 1]
        if first + (2 << 17) <= stop and starts[block + 2] + 64 <= data.size:
            places[2], places[3] = starts[block + 1], starts[block + 2]
            reason = np.int64(_pull_blocks(data, width, first, 1 << 17, lookup, data, places, packed))
            first += 2 << 17
            continue
        source = data
        count = min(1 << 17, stop - first)
        if places[1] + 64 > data.size:
            # Rows ask for words that they may not need; these must lie inside.
            source = zeros(places[1] - places[0] + 64, np.uint8)
            copy_to(source[: places[1] - places[0]], data[places[0] : places[1]])
            places[0], places[1] = 0, places[1] - places[0]
        reason = np.int64(_pull_blocks(data, width, first, count, lookup, source, places[:2], packed))
        first += 1 << 17
    return reason
