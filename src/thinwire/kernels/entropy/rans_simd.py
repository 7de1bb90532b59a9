"""Rows of rANS, an entry of each of the 32 states, in vector instructions, for x86 processors that have AVX2.

The 32 states stay in four registers for all rows of a tile: register ``p`` has states ``4 p`` to ``4 p + 3`` in its lower half
and those 16 further in its upper one, so that packing the four, half by half as the instruction does, gives all 32 in order.
The words that some of eight states give or take lie side by side in the stream. A byte shuffle brings them together, or
hands them out; which, a table of 256 shuffles says, one for every set of states.

Nothing is gathered or scattered by one instruction. Loading a table's entries one by one is as fast or faster, and the
compressing stores and gathers of AVX-512 were slower by far on AMD's Zen 4. Elsewhere, :func:`has_vectors` is false and
plain loops do the same in :mod:`thinwire.kernels.entropy.rans_numba`, with the same bits.
"""

import functools
from typing import Any

from thinwire.kernels.jit.compiling import cgutils, intrinsic, types
from thinwire.kernels.jit.simd import address, load, spread, store, variable, vector

_WIDTH = 8
"""States of a register."""

_PARTS = 4
"""Registers of states."""


def _enabled(context: Any) -> bool:
    # What counts is the processor that Numba compiles for, which may be set to less than the machine's own.
    triple, _, features = context.codegen().magic_tuple()
    return triple.startswith("x86_64") and {"+avx2", "+popcnt"} <= set(features.split(","))


def _collecting(marks: int) -> list[int]:
    """The shuffle that moves the marked words of eight to the end, in order."""
    chosen = [lane for lane in range(_WIDTH) if marks >> lane & 1]
    return [0] * (16 - 2 * len(chosen)) + [2 * lane + part for lane in chosen for part in range(2)]


def _handing_out(marks: int) -> list[int]:
    """The shuffle that gives the marked lanes the next word each, in order, and the others zero."""
    ranks = [(marks & (1 << lane) - 1).bit_count() for lane in range(_WIDTH)]
    return [2 * ranks[lane] + part if marks >> lane & 1 else 0x80 for lane in range(_WIDTH) for part in range(2)]


class _Code:
    """LLVM's builder with the few words that the rows below are made of."""

    def __init__(self, context: Any, builder: Any) -> None:
        from llvmlite import ir

        self.ir, self.context, self.builder = ir, context, builder
        self.byte, self.half, self.word, self.long = (ir.IntType(bits) for bits in (8, 16, 32, 64))
        self.words, self.longs = vector(self.word, _WIDTH), vector(self.long, _WIDTH)
        self.halves, self.bytes = vector(self.half, 16), vector(self.byte, 32)

    def number(self, value: int) -> Any:
        return self.ir.Constant(self.long, value)

    def everywhere(self, value: int) -> Any:
        return self.ir.Constant(self.words, [value] * _WIDTH)

    def at(self, pointer: Any, num_entries: Any) -> Any:
        return self.builder.gep(pointer, [num_entries])

    def mixed(self, one: Any, other: Any, lanes: list[int]) -> Any:
        return self.builder.shuffle_vector(one, other, self.ir.Constant(vector(self.word, len(lanes)), lanes))

    def joined(self, one: Any, other: Any) -> Any:
        """Two vectors side by side."""
        return self.mixed(one, other, list(range(2 * one.type.count)))

    def bits(self, value: Any, first: int, num: int) -> Any:
        """Some bits of every lane."""
        shifted = self.builder.lshr(value, self.everywhere(first)) if first else value
        return self.builder.and_(shifted, self.everywhere((1 << num) - 1)) if first + num < 32 else shifted

    def call(self, name: str, kind: Any, *arguments: Any) -> Any:
        """An instruction by name."""
        of = self.ir.FunctionType(kind, [argument.type for argument in arguments])
        return self.builder.call(self.builder.module.declare_intrinsic(f"llvm.x86.avx2.{name}", (), of), arguments)

    def packed(self, parts: list[Any]) -> list[Any]:
        """The lower 16 bits of the four registers: two vectors of 16, a half of each eight states side by side."""
        low = [self.builder.and_(part, self.everywhere(0xFFFF)) for part in parts]
        return [self.call("packusdw", self.halves, *low[first : first + 2]) for first in (0, 2)]

    def marks_of(self, parts: list[Any]) -> Any:
        """The signs of the four registers as a number, state 0 lowest."""
        pairs = [self.call("packssdw", self.halves, *parts[first : first + 2]) for first in (0, 2)]
        return self.call("pmovmskb", self.word, self.call("packsswb", self.bytes, *pairs))

    def group(self, marks: Any, group: int) -> Any:
        """The marks of eight states."""
        shifted = self.builder.lshr(marks, self.word(8 * group))
        return self.builder.zext(self.builder.and_(shifted, self.word(255)), self.long)

    def count(self, marks: Any) -> Any:
        return self.builder.zext(self.builder.ctpop(marks), self.long)

    def shuffles(self, name: str, of: Any) -> Any:
        """A table with the shuffle for every set of marks."""
        kind = vector(self.byte, 16)
        rows = [self.ir.Constant(kind, of(marks)) for marks in range(1 << _WIDTH)]
        table = self.ir.Constant(self.ir.ArrayType(kind, len(rows)), rows)
        return cgutils.global_constant(self.builder, name, table)

    def shuffled(self, halves: Any, table: Any, groups: tuple[Any, Any]) -> Any:
        """Twice eight 16-bit words, each eight in the order that belongs to its marks."""
        orders = [self.builder.load(self.builder.gep(table, [self.number(0), marks]), align=16) for marks in groups]
        moved = self.call("pshuf.b", self.bytes, self.builder.bitcast(halves, self.bytes), self.joined(*orders))
        return self.builder.bitcast(moved, self.halves)

    def registers(self, states: Any) -> list[Any]:
        """Variables with the states from memory."""
        fours = [load(self.builder, self.at(states, self.number(4 * four)), vector(self.word, 4)) for four in range(8)]
        return [variable(self.builder, self.joined(fours[part], fours[part + 4])) for part in range(_PARTS)]

    def put_back(self, held: list[Any], states: Any) -> None:
        for part in range(_PARTS):
            state = self.builder.load(held[part])
            for half in range(2):
                four = self.mixed(state, state, list(range(4 * half, 4 * half + 4)))
                store(self.builder, four, self.at(states, self.number(4 * part + 16 * half)))

    def entries_at(self, table: Any, indices: list[Any], size: int) -> list[Any]:
        """So many words each, at indices that are in such units."""
        shift, kind = self.number(size.bit_length() - 1), vector(self.word, size)
        return [load(self.builder, self.at(table, self.builder.shl(index, shift)), kind) for index in indices]

    def bytes_at(self, pointer: Any, indices: list[int]) -> list[Any]:
        loaded = [self.builder.load(self.at(pointer, self.number(index))) for index in indices]
        return [self.builder.zext(value, self.long) for value in loaded]

    def entries_of_pairs(self, pairs: Any, table: Any, part: int) -> tuple[Any, Any]:
        """Both words of the entries of a register's symbols, two to a byte of ``pairs``."""
        indices = self.bytes_at(pairs, [2 * part, 2 * part + 8, 2 * part + 1, 2 * part + 9])
        entries = self.entries_at(table, indices, 4)
        one, other = self.joined(entries[0], entries[1]), self.joined(entries[2], entries[3])
        first = self.mixed(one, other, [0, 1, 8, 9, 4, 5, 12, 13])
        return first, self.mixed(one, other, [2, 3, 10, 11, 6, 7, 14, 15])

    def entries_of_bytes(self, symbols: Any, table: Any, part: int) -> tuple[Any, Any]:
        """The same of symbols that are a byte each."""
        lanes = [4 * part + lane + half for lane in range(4) for half in (0, 16)]
        entries = self.entries_at(table, self.bytes_at(symbols, lanes), 2)
        fours = [self.joined(entries[lane], entries[lane + 2]) for lane in (0, 1, 4, 5)]
        one, other = self.joined(fours[0], fours[1]), self.joined(fours[2], fours[3])
        first = self.mixed(one, other, [0, 2, 8, 10, 4, 6, 12, 14])
        return first, self.mixed(one, other, [1, 3, 9, 11, 5, 7, 13, 15])

    def words_of_table(self, table: Any, slots: Any) -> Any:
        """The words at eight indices, each loaded by itself: no slower than a gather, which some processors slow down."""
        result = self.ir.Constant(self.words, self.ir.Undefined)
        twos = self.builder.bitcast(slots, vector(self.long, _WIDTH // 2))
        for two in range(_WIDTH // 2):
            both = self.builder.extract_element(twos, self.word(two))
            indices = self.builder.and_(both, self.number(0xFFFFFFFF)), self.builder.lshr(both, self.number(32))
            for part, index in enumerate(indices):
                entry = self.builder.load(self.at(table, index), align=4)
                result = self.builder.insert_element(result, entry, self.word(2 * two + part))
        return result

    def upper_product(self, one: Any, other: Any) -> Any:
        """The upper 32 bits of the products."""
        wide = self.builder.mul(self.builder.zext(one, self.longs), self.builder.zext(other, self.longs))
        return self.builder.trunc(self.builder.lshr(wide, self.ir.Constant(self.longs, [32] * _WIDTH)), self.words)


def _has_vectors(typing_context: Any) -> Any:
    """Whether the instructions are there; a constant, so that a branch on it costs nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.boolean, _enabled(context))

    return types.boolean(), generate


has_vectors: Any = intrinsic(_has_vectors)


def _push_row(code: _Code, held: list[Any], read: Any, raised: Any, words: Any, shuffles: Any, end: Any) -> Any:
    """A row into the states, its words before word ``end``. The new end."""
    builder = code.builder
    entries = [read(part) for part in range(_PARTS)]
    states = [builder.load(register) for register in held]
    rests = [code.bits(span, 13, 12) for span, _ in entries]
    # Negative where the upper 12 bits are at least the frequency, 4096 - rest.
    room = [
        builder.sub(code.everywhere(4095), builder.add(code.bits(state, 20, 12), rest))
        for state, rest in zip(states, rests, strict=True)
    ]
    marks = code.marks_of(room)
    words_of = code.packed(states)
    # All eight are written, so that the last of those that count is the last before the end: what is too much lies before
    # them, where the next ones come.
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

    Eight words before the new end may be overwritten. If ``paired``, two symbols are a byte. ``raised`` is the first word
    of the entry whose ``a`` is 1.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not _enabled(context):
            return arguments[7]
        code = _Code(context, builder)
        codes, kept, entries, out = (
            address(context, builder, signature.args[index], arguments[index], code.number(0)) for index in (0, 3, 4, 6)
        )
        shuffles = code.shuffles("rans_collecting", _collecting)
        held, place = code.registers(kept), variable(builder, arguments[7])
        raised_everywhere = spread(builder, arguments[5], _WIDTH)

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


def _pull_row(code: _Code, held: list[Any], lookup: Any, data: Any, shuffles: Any, position: Any) -> tuple[Any, Any]:
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
        both, groups = code.joined(eights[pair], eights[pair + 2]), (code.group(marks, pair), code.group(marks, pair + 2))
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

        ``places`` has for each block the byte where it goes on and the byte where it ends; a row is begun only if neither
        is past that. The 64 bytes after an end must lie inside ``data``. ``symbols`` has 2048 entries for each block,
        ``states`` 32.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if not _enabled(context):
                return context.get_constant(types.int64, 0)
            code = _Code(context, builder)
            out, kept, entries, source, ends = (
                address(context, builder, signature.args[index], arguments[index], code.number(0))
                for index in (0, 2, 3, 4, 5)
            )
            shuffles = code.shuffles("rans_handing_out", _handing_out)
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
