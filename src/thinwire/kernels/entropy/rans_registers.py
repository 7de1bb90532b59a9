"""The states of rANS in vector registers, for :mod:`thinwire.kernels.entropy.rans_simd`.

The 32 states stay in four registers for all rows of a tile: register ``p`` has states ``4 p`` to ``4 p + 3`` in its
lower half and those 16 further in its upper one, so that packing the four, half by half as the instruction does, gives
all 32 in order. The words that some of eight states give or take lie side by side in the stream. A byte shuffle brings
them together, or hands them out; which, a table of 256 shuffles says, one for every set of states.
"""

from typing import Any

from thinwire.kernels.jit.compiling import cgutils
from thinwire.kernels.jit.simd import load, store, variable, vector

WIDTH = 8
"""States of a register."""

PARTS = 4
"""Registers of states."""


def enabled(context: Any) -> bool:
    """Whether the instructions are there."""
    # What counts is the processor that Numba compiles for, which may be set to less than the machine's own.
    triple, _, features = context.codegen().magic_tuple()
    return triple.startswith("x86_64") and {"+avx2", "+popcnt"} <= set(features.split(","))


def collecting(marks: int) -> list[int]:
    """The shuffle that moves the marked words of eight to the end, in order."""
    chosen = [lane for lane in range(WIDTH) if marks >> lane & 1]
    return [0] * (16 - 2 * len(chosen)) + [2 * lane + part for lane in chosen for part in range(2)]


def handing_out(marks: int) -> list[int]:
    """The shuffle that gives the marked lanes the next word each, in order, and the others zero."""
    ranks = [(marks & (1 << lane) - 1).bit_count() for lane in range(WIDTH)]
    return [2 * ranks[lane] + part if marks >> lane & 1 else 0x80 for lane in range(WIDTH) for part in range(2)]


class Code:
    """LLVM's builder with the few words that the rows below are made of."""

    def __init__(self, context: Any, builder: Any) -> None:
        from llvmlite import ir

        self.ir, self.context, self.builder = ir, context, builder
        self.byte, self.half, self.word, self.long = (ir.IntType(bits) for bits in (8, 16, 32, 64))
        self.words, self.longs = vector(self.word, WIDTH), vector(self.long, WIDTH)
        self.halves, self.bytes = vector(self.half, 16), vector(self.byte, 32)

    def number(self, value: int) -> Any:
        """A 64-bit constant."""
        return self.ir.Constant(self.long, value)

    def everywhere(self, value: int) -> Any:
        """A constant in every lane."""
        return self.ir.Constant(self.words, [value] * WIDTH)

    def at(self, pointer: Any, num_entries: Any) -> Any:
        """A pointer so many entries further."""
        return self.builder.gep(pointer, [num_entries])

    def mixed(self, one: Any, other: Any, lanes: list[int]) -> Any:
        """Lanes of two vectors, in the given order."""
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
        """How many marks there are."""
        return self.builder.zext(self.builder.ctpop(marks), self.long)

    def shuffles(self, name: str, of: Any) -> Any:
        """A table with the shuffle for every set of marks."""
        kind = vector(self.byte, 16)
        rows = [self.ir.Constant(kind, of(marks)) for marks in range(1 << WIDTH)]
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
        return [variable(self.builder, self.joined(fours[part], fours[part + 4])) for part in range(PARTS)]

    def put_back(self, held: list[Any], states: Any) -> None:
        """States to memory, in order."""
        for part in range(PARTS):
            state = self.builder.load(held[part])
            for half in range(2):
                four = self.mixed(state, state, list(range(4 * half, 4 * half + 4)))
                store(self.builder, four, self.at(states, self.number(4 * part + 16 * half)))

    def entries_at(self, table: Any, indices: list[Any], size: int) -> list[Any]:
        """So many words each, at indices that are in such units."""
        shift, kind = self.number(size.bit_length() - 1), vector(self.word, size)
        return [load(self.builder, self.at(table, self.builder.shl(index, shift)), kind) for index in indices]

    def bytes_at(self, pointer: Any, indices: list[int]) -> list[Any]:
        """Bytes as indices."""
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
        """The words at eight indices, each loaded by itself, which is no slower than a gather."""
        result = self.ir.Constant(self.words, self.ir.Undefined)
        twos = self.builder.bitcast(slots, vector(self.long, WIDTH // 2))
        for two in range(WIDTH // 2):
            both = self.builder.extract_element(twos, self.word(two))
            indices = self.builder.and_(both, self.number(0xFFFFFFFF)), self.builder.lshr(both, self.number(32))
            for part, index in enumerate(indices):
                entry = self.builder.load(self.at(table, index), align=4)
                result = self.builder.insert_element(result, entry, self.word(2 * two + part))
        return result

    def upper_product(self, one: Any, other: Any) -> Any:
        """The upper 32 bits of the products."""
        wide = self.builder.mul(self.builder.zext(one, self.longs), self.builder.zext(other, self.longs))
        return self.builder.trunc(self.builder.lshr(wide, self.ir.Constant(self.longs, [32] * WIDTH)), self.words)
