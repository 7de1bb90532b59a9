"""The few vector instructions of the selection, written out.

A loop over ``out[j] = decay * residual[j] + x[j]`` is not compiled to vector instructions where ``out`` is ``x`` or
``residual``, as it often is, and a comparison's result would pass through memory as bytes. Here each step handles 64 or
256 entries: all loads of a group of 16 come before its store, so that shared memory does no harm, and comparisons end
as bits of a word. The code is LLVM's own for vectors of 16, so it runs on any processor.
"""

from typing import Any

from thinwire.kernels.jit import simd
from thinwire.kernels.jit.compiling import intrinsic, types
from thinwire.kernels.jit.simd import LANES

MAGNITUDE = 0x7FFFFFFF
"""The bits of a float32 but for its sign. They order as the magnitudes do, NaN above inf."""

NOTHING = 0x80000000
"""A bound that no magnitude reaches."""

GROUP = 256
"""Entries that leave 16 maxima: each is the largest of 16 magnitudes."""


class _Builder:
    """LLVM's builder with the few words that the instructions below are made of."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        from llvmlite import ir

        self.ir, self.builder = ir, builder
        self.context, self.signature, self.arguments = context, signature, arguments
        self.floats, self.words = simd.vector(ir.FloatType()), simd.vector(ir.IntType(32))

    def address(self, array: int, position: Any) -> Any:
        return simd.address(self.context, self.builder, self.signature.args[array], self.arguments[array], position)

    def load(self, address: Any, first: int, kind: Any) -> Any:
        return simd.load(self.builder, self._place(address, first), kind)

    def store(self, vector: Any, address: Any, first: int) -> None:
        simd.store(self.builder, vector, self._place(address, first))

    def everywhere(self, value: Any) -> Any:
        return simd.spread(self.builder, value)

    def _place(self, address: Any, first: int) -> Any:
        return self.builder.gep(address, [self.ir.Constant(self.ir.IntType(64), first)])

    def accumulated(self, x: Any, residual: Any, decay: Any, out: Any, first: int) -> Any:
        """Add 16 entries, write them, and give them back: the product and the sum are rounded one by one."""
        scaled = self.builder.fmul(self.load(residual, first, self.floats), decay)
        total = self.builder.fadd(scaled, self.load(x, first, self.floats))
        self.store(total, out, first)
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
        factor = make.everywhere(arguments[2])
        least = make.everywhere(arguments[5])
        word = make.ir.Constant(make.ir.IntType(64), 0)
        for first in range(0, 64, LANES):
            entries = make.accumulated(addresses[0], addresses[1], factor, addresses[2], first)
            word = make.marked(word, entries, least, first)
        return word

    return types.uint64(x, residual, types.float32, out, types.intp, types.uint32), generate


accumulate_64: Any = intrinsic(_accumulate_64)


def _sum_16(typing: Any, x: Any, residual: Any, decay: Any, position: Any, out: Any, place: Any) -> Any:
    """``out = decay * residual + x`` for the 16 entries from ``position`` on, to those of ``out`` from ``place`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        make = _Builder(context, builder, signature, arguments)
        entries, left = make.address(0, arguments[3]), make.address(1, arguments[3])
        make.accumulated(entries, left, make.everywhere(arguments[2]), make.address(4, arguments[5]), 0)
        return context.get_dummy_value()

    return types.void(x, residual, types.float32, types.intp, out, types.intp), generate


sum_16: Any = intrinsic(_sum_16)


def _passing_64(typing: Any, entries: Any, position: Any, bound: Any) -> Any:
    """A word with the bits set of those of 64 ``entries``, float32 or their bits, whose magnitudes reach ``bound``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        make = _Builder(context, builder, signature, arguments)
        address = make.address(0, arguments[1])
        least = make.everywhere(arguments[2])
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
        factor = make.everywhere(arguments[2])
        largest = make.ir.Constant(make.words, [0] * LANES)
        for first in range(0, GROUP, LANES):
            entries = make.accumulated(addresses[0], addresses[1], factor, addresses[2], first)
            largest = make.larger(make.magnitudes(entries), largest)
        make.store(largest, make.address(5, arguments[6]), 0)
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
        make.store(largest, make.address(2, arguments[3]), 0)
        return context.get_dummy_value()

    return types.void(entries, types.intp, maxima, types.intp), generate


take_maxima: Any = intrinsic(_take_maxima)
