"""Rows of rANS, an entry of each of the 32 states, in vector instructions, for x86 processors that have AVX2.

The 32 states stay in four registers for all rows of a tile. The words that some of the eight states of a register give
or take lie side by side in the stream. A byte shuffle brings them together, or hands them out; which, a table of
256 shuffles says, one for every set of states. No instruction of AVX-512 does this better everywhere: on AMD's Zen 4 a
compressing store takes over a hundred cycles, and gathering from a table more than loading its entries one by one.
Elsewhere, :func:`has_vectors` is false and plain loops do the same in
:mod:`thinwire.kernels.entropy.rans_numba`, with the same bits.
"""

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
        self.shuffle = vector(self.byte, 16)

    def number(self, value: int) -> Any:
        return self.ir.Constant(self.long, value)

    def everywhere(self, value: int) -> Any:
        return self.ir.Constant(self.words, [value] * _WIDTH)

    def mixed(self, one: Any, other: Any, lanes: list[int]) -> Any:
        chosen = self.ir.Constant(vector(self.word, len(lanes)), lanes)
        return self.builder.shuffle_vector(one, other, chosen)

    def bits(self, value: Any, first: int, num: int) -> Any:
        """Some bits of every lane."""
        shifted = self.builder.lshr(value, self.everywhere(first)) if first else value
        return self.builder.and_(shifted, self.everywhere((1 << num) - 1)) if first + num < 32 else shifted

    def shuffles(self, name: str, of: Any) -> Any:
        """A table with the shuffle for every set of marks."""
        rows = [self.ir.Constant(self.shuffle, of(marks)) for marks in range(1 << _WIDTH)]
        table = self.ir.Constant(self.ir.ArrayType(self.shuffle, len(rows)), rows)
        return cgutils.global_constant(self.builder, name, table)

    def shuffled(self, halves: Any, table: Any, marks: Any) -> Any:
        """Eight 16-bit words in the order that belongs to the marks."""
        order = self.builder.load(self.builder.gep(table, [self.number(0), marks]), align=16)
        kind = self.ir.FunctionType(self.shuffle, [self.shuffle, self.shuffle])
        function = self.builder.module.declare_intrinsic("llvm.x86.ssse3.pshuf.b.128", (), kind)
        moved = self.builder.call(function, [self.builder.bitcast(halves, self.shuffle), order])
        return self.builder.bitcast(moved, halves.type)

    def index_of(self, marks: Any) -> Any:
        """Eight marks as a number."""
        return self.builder.zext(self.builder.bitcast(marks, self.byte), self.long)

    def at(self, pointer: Any, num_entries: Any) -> Any:
        return self.builder.gep(pointer, [num_entries])

    def byte_at(self, pointer: Any, index: Any) -> Any:
        return self.builder.zext(self.builder.load(self.at(pointer, index)), self.long)

    def entries_of_pairs(self, pairs: Any, table: Any) -> tuple[Any, Any]:
        """Both words of the entries of eight symbols, two to a byte of ``pairs``; an entry of the table has two."""
        loaded = []
        for pair in range(_WIDTH // 2):
            index = self.builder.shl(self.byte_at(pairs, self.number(pair)), self.number(2))
            loaded.append(load(self.builder, self.at(table, index), vector(self.word, 4)))
        even = self.mixed(loaded[0], loaded[2], list(range(8)))
        odd = self.mixed(loaded[1], loaded[3], list(range(8)))
        first = self.mixed(even, odd, [0, 1, 8, 9, 4, 5, 12, 13])
        return first, self.mixed(even, odd, [2, 3, 10, 11, 6, 7, 14, 15])

    def entries_of_bytes(self, symbols: Any, table: Any) -> tuple[Any, Any]:
        """The same of eight symbols, each a byte."""
        entries = self.ir.Constant(self.longs, self.ir.Undefined)
        for lane in range(_WIDTH):
            index = self.builder.shl(self.byte_at(symbols, self.number(lane)), self.number(1))
            entry = load(self.builder, self.at(table, index), self.long)
            entries = self.builder.insert_element(entries, entry, self.ir.Constant(self.word, lane))
        upper = self.builder.lshr(entries, self.ir.Constant(self.longs, [32] * _WIDTH))
        return self.builder.trunc(entries, self.words), self.builder.trunc(upper, self.words)

    def gathered(self, table: Any, indices: Any) -> Any:
        """The words of a table at eight indices."""
        kinds = [self.words, self.byte.as_pointer(), self.words, self.words, self.byte]
        kind = self.ir.FunctionType(self.words, kinds)
        function = self.builder.module.declare_intrinsic("llvm.x86.avx2.gather.d.d.256", (), kind)
        everyone = self.everywhere(0xFFFFFFFF)
        start = self.builder.bitcast(table, self.byte.as_pointer())
        return self.builder.call(function, [self.everywhere(0), start, indices, everyone, self.byte(4)])

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


def _push(code: _Code, state: Any, entry: tuple[Any, Any], words: Any, table: Any, end: Any) -> tuple[Any, Any]:
    """Eight states with a symbol each, their words before word ``end``; the new states and the new end."""
    builder = code.builder
    span, multiplier = entry
    rest = code.bits(span, 12, 12)
    # Its upper 12 bits are at least the frequency, 4096 - rest.
    top = builder.add(builder.lshr(state, code.everywhere(20)), rest)
    full = builder.icmp_signed(">", top, code.everywhere(4095))
    marks = code.index_of(full)
    halves = code.shuffled(builder.trunc(state, vector(code.half, _WIDTH)), table, marks)
    # All eight are written, so that the last of those that count is the last before the end.
    store(builder, halves, code.at(words, builder.sub(end, code.number(_WIDTH))))
    state = builder.select(full, builder.lshr(state, code.everywhere(16)), state)
    high = code.upper_product(builder.add(state, code.bits(span, 24, 1)), multiplier)
    quotient = builder.lshr(high, code.bits(span, 28, 4))
    moved = builder.add(state, code.bits(span, 0, 12))
    return builder.add(moved, builder.mul(quotient, rest)), builder.sub(end, builder.ctpop(marks))


def _push_rows(
    typing: Any, symbols: Any, paired: Any, num_rows: Any, states: Any, table: Any, words: Any, position: Any
) -> Any:
    """Encode rows, the last first, their words before word ``position``. The new position.

    Before every word that is written, eight more may be overwritten. If ``paired``, two symbols are a byte.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not _enabled(context):
            return arguments[6]
        code = _Code(context, builder)
        codes, kept, entries, out = (
            address(context, builder, signature.args[index], arguments[index], code.number(0)) for index in (0, 3, 4, 5)
        )
        shuffles = code.shuffles("rans_collecting", _collecting)
        places = [code.at(kept, code.number(_WIDTH * part)) for part in range(_PARTS)]
        held = [variable(builder, load(builder, place, code.words)) for place in places]
        end = variable(builder, arguments[6])

        def rows(read: Any, num_bytes: int) -> None:
            with cgutils.for_range(builder, arguments[2]) as loop:
                row = builder.sub(builder.sub(arguments[2], loop.index), code.number(1))
                for part in reversed(range(_PARTS)):
                    first = builder.add(builder.mul(row, code.number(_PARTS * num_bytes)), code.number(part * num_bytes))
                    entry = read(code.at(codes, first), entries)
                    state, new_end = _push(code, builder.load(held[part]), entry, out, shuffles, builder.load(end))
                    builder.store(state, held[part])
                    builder.store(new_end, end)

        with builder.if_else(arguments[1]) as (pairs, single):
            with pairs:
                rows(code.entries_of_pairs, _WIDTH // 2)
            with single:
                rows(code.entries_of_bytes, _WIDTH)
        for part in range(_PARTS):
            store(builder, builder.load(held[part]), places[part])
        return builder.load(end)

    kinds = (symbols, types.boolean, types.int64, states, table, words, types.int64)
    return types.int64(*kinds), generate


push_rows: Any = intrinsic(_push_rows)


def _pull(code: _Code, state: Any, lookup: Any, words: Any, table: Any) -> tuple[Any, Any, Any]:
    """Eight states without a symbol each; the states, the entries of the lookup, how many bytes were taken."""
    builder = code.builder
    entry = code.gathered(lookup, code.bits(state, 0, 12))
    frequency = builder.add(code.bits(entry, 0, 12), code.everywhere(1))
    upper = builder.lshr(state, code.everywhere(12))
    state = builder.add(builder.mul(frequency, upper), code.bits(entry, 12, 12))
    more = builder.icmp_unsigned("<", state, code.everywhere(1 << 16))
    marks = code.index_of(more)
    halves = code.shuffled(load(builder, words, vector(code.half, _WIDTH)), table, marks)
    longer = builder.or_(builder.shl(state, code.everywhere(16)), builder.zext(halves, code.words))
    num_bytes = builder.shl(builder.ctpop(marks), code.number(1))
    return builder.select(more, longer, state), entry, num_bytes


def _pull_rows(
    typing: Any, symbols: Any, num_rows: Any, states: Any, lookup: Any, data: Any, limit: Any, places: Any
) -> Any:
    """Decode rows from row ``places[0]`` and byte ``places[1]`` on, while that is not above ``limit``.

    The 64 bytes after ``limit`` must lie inside ``data``. ``places`` is where it ends.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not _enabled(context):
            return context.get_dummy_value()
        code = _Code(context, builder)
        out, kept, entries, source, begin = (
            address(context, builder, signature.args[index], arguments[index], code.number(0))
            for index in (0, 2, 3, 4, 6)
        )
        shuffles = code.shuffles("rans_handing_out", _handing_out)
        registers = [code.at(kept, code.number(_WIDTH * part)) for part in range(_PARTS)]
        held = [variable(builder, load(builder, register, code.words)) for register in registers]
        progress = [code.at(begin, code.number(part)) for part in range(2)]
        row, position = (variable(builder, builder.load(place)) for place in progress)
        test, body, after = (builder.append_basic_block(name) for name in ("test", "body", "after"))
        builder.branch(test)
        builder.position_at_end(test)
        left = builder.icmp_signed("<", builder.load(row), arguments[1])
        there = builder.icmp_signed("<=", builder.load(position), arguments[5])
        builder.cbranch(builder.and_(left, there), body, after)
        builder.position_at_end(body)
        found = []
        for part in range(_PARTS):
            words = code.at(source, builder.load(position))
            state, entry, num_bytes = _pull(code, builder.load(held[part]), entries, words, shuffles)
            builder.store(state, held[part])
            builder.store(builder.add(builder.load(position), num_bytes), position)
            found.append(entry)
        halves = [code.mixed(found[part], found[part + 1], list(range(16))) for part in (0, 2)]
        all_32 = code.mixed(halves[0], halves[1], list(range(32)))
        symbol = builder.trunc(builder.lshr(all_32, all_32.type([24] * 32)), vector(code.byte, 32))
        store(builder, symbol, code.at(out, builder.shl(builder.load(row), code.number(5))))
        builder.store(builder.add(builder.load(row), code.number(1)), row)
        builder.branch(test)
        builder.position_at_end(after)
        for part in range(_PARTS):
            store(builder, builder.load(held[part]), registers[part])
        builder.store(builder.load(row), progress[0])
        builder.store(builder.load(position), progress[1])
        return context.get_dummy_value()

    return types.void(symbols, types.int64, states, lookup, data, types.int64, places), generate


pull_rows: Any = intrinsic(_pull_rows)
