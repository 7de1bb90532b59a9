"""The few vector instructions of the selection, written out.

A loop over ``out[j] = decay * residual[j] + x[j]`` is not compiled to vector instructions where ``out`` is ``x`` or
``residual``, as it often is, and a comparison's result would pass through memory as bytes. Here each step handles 64 or
256 entries: all loads of a group of 16 come before its store, so that shared memory does no harm, and comparisons end
as bits of a word. The code is LLVM's own for vectors of 16, so it runs on any processor.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic

MAGNITUDE = 0x7FFFFFFF
"""The bits of a float32 but for its sign. They order as the magnitudes do, NaN above inf."""

NOTHING = 0x80000000
"""A bound that no magnitude reaches."""

LANES = 16
"""Entries that one vector operation handles, and maxima that a group of entries leaves."""

GROUP = 256
"""Entries that leave 16 maxima: each is the largest of 16 magnitudes."""


class _Builder:
    """LLVM's builder with the few words that the instructions below are made of."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        from llvmlite import ir

        self.ir, self.builder = ir, builder
        self.context, self.signature, self.arguments = context, signature, arguments
        self.floats, self.words = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)

    def address(self, array: int, position: Any) -> Any:
        data = self.context.make_array(self.signature.args[array])(self.context, self.builder, self.arguments[array])
        return self.builder.gep(data.data, [position])

    def lanes(self, address: Any, first: int, kind: Any) -> Any:
        place = self.builder.gep(address, [self.ir.Constant(self.ir.IntType(64), first)])
        return self.builder.bitcast(place, kind.as_pointer())

    def load(self, address: Any, first: int, kind: Any) -> Any:
        return self.builder.load(self.lanes(address, first, kind), align=4)

    def store(self, vector: Any, address: Any, first: int, kind: Any) -> None:
        self.builder.store(vector, self.lanes(address, first, kind), align=4)

    def everywhere(self, value: Any, kind: Any) -> Any:
        undefined = self.ir.Constant(kind, self.ir.Undefined)
        zeros = self.ir.Constant(self.words, [0] * LANES)
        first = self.builder.insert_element(undefined, value, self.ir.Constant(self.ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, undefined, zeros)

    def accumulated(self, x: Any, residual: Any, decay: Any, out: Any, first: int) -> Any:
        """Add 16 entries, write them, and give them back: the product and the sum are rounded one by one."""
        scaled = self.builder.fmul(self.load(residual, first, self.floats), decay)
        total = self.builder.fadd(scaled, self.load(x, first, self.floats))
        self.store(total, out, first, self.floats)
        return total

    def magnitudes(self, entries: Any) -> Any:
        mask = self.ir.Constant(self.words, [MAGNITUDE] * LANES)
        return self.builder.and_(self.builder.bitcast(entries, self.words), mask)

    def marked(self, word: Any, entries: Any, bound: Any, first: int) -> Any:
        """The word with the bits set from ``first`` on whose magnitudes reach the bound."""
        long = self.ir.IntType(64)
        reached = self.builder.icmp_unsigned(">=", self.magnitudes(entries), bound)
        bits = self.builder.zext(self.builder.bitcast(reached, self.ir.IntType(LANES)), long)
        return self.builder.or_(word, self.builder.shl(bits, self.ir.Constant(long, first)))

    def larger(self, one: Any, other: Any) -> Any:
        return self.builder.select(self.builder.icmp_unsigned(">", one, other), one, other)


def _accumulate_64(typing: Any, x: Any, residual: Any, decay: Any, out: Any, position: Any, bound: Any) -> Any:
    """``out = decay * residual + x`` for 64 entries; a word with the bits set whose magnitudes reach ``bound``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        make = _Builder(context, builder, signature, arguments)
        addresses = [make.address(array, arguments[4]) for array in (0, 1, 3)]
        factor = make.everywhere(arguments[2], make.floats)
        least = make.everywhere(arguments[5], make.words)
        word = make.ir.Constant(make.ir.IntType(64), 0)
        for first in range(0, 64, LANES):
            entries = make.accumulated(addresses[0], addresses[1], factor, addresses[2], first)
            word = make.marked(word, entries, least, first)
        return word

    return types.uint64(x, residual, types.float32, out, types.intp, types.uint32), generate


accumulate_64: Any = intrinsic(_accumulate_64)


def _passing_64(typing: Any, entries: Any, position: Any, bound: Any) -> Any:
    """A word with the bits set of those of 64 ``entries``, float32 or their bits, whose magnitudes reach ``bound``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        make = _Builder(context, builder, signature, arguments)
        address = make.address(0, arguments[1])
        least = make.everywhere(arguments[2], make.words)
        word = make.ir.Constant(make.ir.IntType(64), 0)
        for first in range(0, 64, LANES):
            word = make.marked(word, make.load(address, first, make.floats), least, first)
        return word

    return types.uint64(entries, types.intp, types.uint32), generate


passing_64: Any = intrinsic(_passing_64)


def _accumulate_maxima(
    typing: Any, x: Any, residual: Any, decay: Any, out: Any, position: Any, maxima: Any, place: Any
) -> Any:
    """``out = decay * residual + x`` for 256 entries; 16 maxima of their magnitudes to ``maxima[place:]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        make = _Builder(context, builder, signature, arguments)
        addresses = [make.address(array, arguments[4]) for array in (0, 1, 3)]
        factor = make.everywhere(arguments[2], make.floats)
        largest = make.ir.Constant(make.words, [0] * LANES)
        for first in range(0, GROUP, LANES):
            entries = make.accumulated(addresses[0], addresses[1], factor, addresses[2], first)
            largest = make.larger(make.magnitudes(entries), largest)
        make.store(largest, make.address(5, arguments[6]), 0, make.words)
        return context.get_dummy_value()

    return types.void(x, residual, types.float32, out, types.intp, maxima, types.intp), generate


accumulate_maxima: Any = intrinsic(_accumulate_maxima)


def _take_maxima(typing: Any, entries: Any, position: Any, maxima: Any, place: Any) -> Any:
    """16 maxima of the magnitudes of 256 float32 ``entries`` to ``maxima[place:]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        make = _Builder(context, builder, signature, arguments)
        address = make.address(0, arguments[1])
        largest = make.ir.Constant(make.words, [0] * LANES)
        for first in range(0, GROUP, LANES):
            largest = make.larger(make.magnitudes(make.load(address, first, make.floats)), largest)
        make.store(largest, make.address(2, arguments[3]), 0, make.words)
        return context.get_dummy_value()

    return types.void(entries, types.intp, maxima, types.intp), generate


take_maxima: Any = intrinsic(_take_maxima)


def _count_ones(typing: Any, word: Any) -> Any:
    """Number of bits set in a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


count_ones: Any = intrinsic(_count_ones)
