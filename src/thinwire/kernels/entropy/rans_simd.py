"""Rows of rANS, an entry of each of the 32 states, in vector instructions, for x86 processors that have AVX2.

Nothing is gathered or scattered by one instruction: on AMD's Zen 3, loading a table's entries one by one was faster.
Elsewhere, :func:`has_vectors` is false and plain loops do the same in
:mod:`thinwire.kernels.entropy.rans_numba`, with the same bits.
"""

import functools
from typing import Any

from thinwire.kernels.entropy.rans_registers import PARTS, WIDTH, Code, collecting, enabled, handing_out
from thinwire.kernels.jit.compiling import cgutils, intrinsic, types
from thinwire.kernels.jit.simd import address, load, spread, store, variable, vector


def _has_vectors(typing_context: Any) -> Any:
    """Whether the instructions are there; a constant, so that a branch on it costs nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.boolean, enabled(context))

    return types.boolean(), generate


has_vectors: Any = intrinsic(_has_vectors)


def _push_row(code: Code, held: list[Any], read: Any, raised: Any, words: Any, shuffles: Any, end: Any) -> Any:
    """A row into the states, its words before word ``end``. The new end."""
    builder = code.builder
    entries = [read(part) for part in range(PARTS)]
    states = [builder.load(register) for register in held]
    rests = [code.bits(span, 13, 12) for span, _ in entries]
    # Negative where the upper 12 bits are at least the frequency, 4096 - rest.
    room = [
        builder.sub(code.everywhere(4095), builder.add(code.bits(state, 20, 12), rest))
        for state, rest in zip(states, rests, strict=True)
    ]
    marks = code.marks_of(room)
    words_of = code.packed(states)
    # All eight are written, those that count last, right before the end; where the others lie the next ones come.
    ordered = [code.shuffled(words_of[i], shuffles, (code.group(marks, i), code.group(marks, i + 2))) for i in (0, 1)]
    for group in (3, 2, 1, 0):
        after = code.count(builder.lshr(marks, code.word(8 * group + 8))) if group < 3 else code.number(0)
        eight = [lane + group // 2 * 8 for lane in range(8)]
        place = builder.sub(builder.sub(end, after), code.number(8))
        store(builder, code.mixed(ordered[group % 2], ordered[group % 2], eight), code.at(words, place))
    for part, (span, multiplier) in enumerate(entries):
        full = builder.icmp_signed("<", room[part], code.everywhere(0))
        state = builder.select(full, builder.lshr(states[part], code.everywhere(16)), states[part])
        one_more = builder.sext(builder.icmp_unsigned("==", span, raised), code.words)
        high = code.upper_product(builder.sub(state, one_more), multiplier)
        quotient = builder.lshr(high, code.bits(span, 28, 4))
        moved = builder.add(state, code.bits(span, 0, 13))
        builder.store(builder.add(moved, builder.mul(quotient, rests[part])), held[part])
    return builder.sub(end, code.count(marks))


def _push_rows(
    typing: Any, symbols: Any, paired: Any, num_rows: Any, states: Any, table: Any, raised: Any, words: Any, end: Any
) -> Any:
    """Encode rows, the last first, their words before word ``end``. The new end.

    Eight words before the new end may be overwritten. If ``paired``, two symbols are a byte. ``raised`` is the first
    word of the entry whose ``a`` is 1.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not enabled(context):
            return arguments[7]
        code = Code(context, builder)
        codes, kept, entries, out = (
            address(context, builder, signature.args[index], arguments[index], code.number(0)) for index in (0, 3, 4, 6)
        )
        shuffles = code.shuffles("rans_collecting", collecting)
        held, place = code.registers(kept), variable(builder, arguments[7])
        raised_everywhere = spread(builder, arguments[5], WIDTH)

        def rows(read: Any, num_bytes: int) -> None:
            with cgutils.for_range(builder, arguments[2]) as loop:
                row = builder.sub(builder.sub(arguments[2], loop.index), code.number(1))
                begin = code.at(codes, builder.mul(row, code.number(num_bytes)))
                of_part = functools.partial(read, begin, entries)
                new = _push_row(code, held, of_part, raised_everywhere, out, shuffles, builder.load(place))
                builder.store(new, place)

        with builder.if_else(arguments[1]) as (pairs, single):
            with pairs:
                rows(code.entries_of_pairs, 16)
            with single:
                rows(code.entries_of_bytes, 32)
        code.put_back(held, kept)
        return builder.load(place)

    kinds = (symbols, types.boolean, types.int64, states, table, types.uint32, words, types.int64)
    return types.int64(*kinds), generate


push_rows: Any = intrinsic(_push_rows)


def _pull_row(code: Code, held: list[Any], lookup: Any, data: Any, shuffles: Any, position: Any) -> tuple[Any, Any]:
    """A row out of the states, their words from byte ``position`` on: its 32 symbols, and the position after them."""
    builder = code.builder
    states = [builder.load(register) for register in held]
    entries = [code.words_of_table(lookup, code.bits(state, 0, 12)) for state in states]
    for part, entry in enumerate(entries):
        frequency = builder.add(code.bits(entry, 0, 12), code.everywhere(1))
        product = builder.mul(frequency, code.bits(states[part], 12, 20))
        states[part] = builder.add(product, code.bits(entry, 12, 12))
    short = [builder.icmp_unsigned("<", state, code.everywhere(1 << 16)) for state in states]
    marks = code.marks_of([builder.sext(part, code.words) for part in short])
    eights = []
    for group in range(4):
        before = code.count(builder.and_(marks, code.word((1 << 8 * group) - 1)))
        place = builder.add(position, builder.shl(before, code.number(1)))
        eights.append(load(builder, code.at(data, place), vector(code.half, 8)))
    for pair in range(2):
        both, groups = (
            code.joined(eights[pair], eights[pair + 2]),
            (code.group(marks, pair), code.group(marks, pair + 2)),
        )
        halves = code.shuffled(both, shuffles, groups)
        for part in (2 * pair, 2 * pair + 1):
            first = 4 * (part % 2)
            lanes = [lane for i in range(first, first + 4) for lane in (i, 16)]
            lanes += [lane for i in range(first + 8, first + 12) for lane in (i, 16)]
            words = builder.bitcast(code.mixed(halves, code.ir.Constant(code.halves, [0] * 16), lanes), code.words)
            longer = builder.or_(builder.shl(states[part], code.everywhere(16)), words)
            builder.store(builder.select(short[part], longer, states[part]), held[part])
    tops = code.packed([code.bits(entry, 24, 8) for entry in entries])
    symbols = code.call("packuswb", code.bytes, *tops)
    return symbols, builder.add(position, builder.shl(code.count(marks), code.number(1)))


def _pull_rows_of(num_blocks: int) -> Any:
    def pull_rows(typing: Any, symbols: Any, num_rows: Any, states: Any, lookup: Any, data: Any, places: Any) -> Any:
        """Decode rows of one block, or of two at once, whose states wait for memory by turns. How many rows it did.

        ``places`` has for each block the byte where it goes on and the byte where it ends; a row is begun only if
        neither is past that. The 64 bytes after an end must lie inside ``data``. ``symbols`` has 2048 entries for each
        block, ``states`` 32.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if not enabled(context):
                return context.get_constant(types.int64, 0)
            code = Code(context, builder)
            out, kept, entries, source, ends = (
                address(context, builder, signature.args[index], arguments[index], code.number(0))
                for index in (0, 2, 3, 4, 5)
            )
            shuffles = code.shuffles("rans_handing_out", handing_out)
            blocks = range(num_blocks)
            begins = [code.at(kept, code.number(32 * block)) for block in blocks]
            held = [code.registers(begin) for begin in begins]
            rows = variable(builder, code.number(0))
            positions = [variable(builder, builder.load(code.at(ends, code.number(2 * block)))) for block in blocks]
            limits = [builder.load(code.at(ends, code.number(2 * block + 1))) for block in blocks]
            test, body, after = (builder.append_basic_block(name) for name in ("test", "body", "after"))
            builder.branch(test)
            builder.position_at_end(test)
            goes_on = builder.icmp_signed("<", builder.load(rows), arguments[1])
            for position, limit in zip(positions, limits, strict=True):
                goes_on = builder.and_(goes_on, builder.icmp_signed("<=", builder.load(position), limit))
            builder.cbranch(goes_on, body, after)
            builder.position_at_end(body)
            row = builder.shl(builder.load(rows), code.number(5))
            for block in blocks:
                position = builder.load(positions[block])
                found, position = _pull_row(code, held[block], entries, source, shuffles, position)
                builder.store(position, positions[block])
                store(builder, found, code.at(out, builder.add(row, code.number(2048 * block))))
            builder.store(builder.add(builder.load(rows), code.number(1)), rows)
            builder.branch(test)
            builder.position_at_end(after)
            for block in blocks:
                code.put_back(held[block], begins[block])
                builder.store(builder.load(positions[block]), code.at(ends, code.number(2 * block)))
            return builder.load(rows)

        return types.int64(symbols, types.int64, states, lookup, data, places), generate

    return intrinsic(pull_rows)


pull_rows: Any = _pull_rows_of(1)
pull_rows_of_two: Any = _pull_rows_of(2)
