"""One row of rANS, an entry of each of the 32 states, in vector instructions, for processors that have them.

The tables are read with gathers. The words that some of the states take or give lie side by side in the stream: an
expanding load hands them out to these states in order, a compressing store collects them. All three are instructions
of AVX-512 (F, BW and VBMI2); elsewhere, :func:`has_vectors` is false and plain loops do the same in
:mod:`thinwire.kernels.entropy.rans_numba`, with the same bits.
"""

from typing import Any

from thinwire.kernels.jit.compiling import intrinsic, types

_WIDTH = 16
"""States that one instruction handles."""


def _enabled(context: Any) -> bool:
    # What counts is the processor that Numba compiles for, which may be set to less than the machine's own.
    triple, _, features = context.codegen().magic_tuple()
    needed = {"+avx512f", "+avx512bw", "+avx512vbmi2"}
    return triple.startswith("x86_64") and needed <= set(features.split(","))


class _Builder:
    """LLVM's builder with the few words that the instructions below are made of."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        from llvmlite import ir

        self.ir, self.builder = ir, builder
        self.context, self.signature, self.arguments = context, signature, arguments
        self.long, self.half = ir.IntType(64), ir.IntType(16)
        self.byte_pointer = ir.IntType(8).as_pointer()
        self.longs, self.words = ir.VectorType(self.long, _WIDTH), ir.VectorType(ir.IntType(32), _WIDTH)
        self.halves, self.marks = ir.VectorType(self.half, _WIDTH), ir.VectorType(ir.IntType(1), _WIDTH)

    def number(self, value: int) -> Any:
        return self.ir.Constant(self.long, value)

    def everywhere(self, value: int, kind: Any = None) -> Any:
        return self.ir.Constant(self.words if kind is None else kind, [value] * _WIDTH)

    def memory(self, array: int, num_bytes: Any, kind: Any) -> Any:
        """A pointer to ``kind``, so many bytes after the beginning of an argument that is an array."""
        data = self.context.make_array(self.signature.args[array])(self.context, self.builder, self.arguments[array])
        address = self.builder.gep(self.builder.bitcast(data.data, self.byte_pointer), [num_bytes])
        return self.builder.bitcast(address, kind.as_pointer())

    def gather(self, array: int, indices: Any) -> Any:
        """The 32-bit words of an array at 16 indices."""
        kinds = [self.words, self.byte_pointer, self.words, self.marks, self.ir.IntType(32)]
        table = self.builder.bitcast(self.memory(array, self.number(0), self.half), self.byte_pointer)
        everyone = self.everywhere(1, self.marks)
        scale = self.ir.Constant(self.ir.IntType(32), 4)
        arguments = [self.everywhere(0), table, indices, everyone, scale]
        return self._call("llvm.x86.avx512.mask.gather.dpi.512", self.words, kinds, arguments)

    def expanding_load(self, address: Any, marks: Any) -> Any:
        kinds = [self.half.as_pointer(), self.marks, self.halves]
        arguments = [address, marks, self.everywhere(0, self.halves)]
        return self._call("llvm.masked.expandload.v16i16", self.halves, kinds, arguments)

    def compressing_store(self, halves: Any, address: Any, marks: Any) -> None:
        kinds = [self.halves, self.half.as_pointer(), self.marks]
        self._call("llvm.masked.compressstore.v16i16", self.ir.VoidType(), kinds, [halves, address, marks])

    def num_bytes_of(self, marks: Any) -> Any:
        """Two for every mark."""
        count = self.builder.ctpop(self.builder.zext(self.builder.bitcast(marks, self.half), self.long))
        return self.builder.shl(count, self.number(1))

    def _call(self, name: str, kind: Any, kinds: list[Any], arguments: list[Any]) -> Any:
        function = self.builder.module.declare_intrinsic(name, (), self.ir.FunctionType(kind, kinds))
        return self.builder.call(function, arguments)


def _has_vectors(typing_context: Any) -> Any:
    """Whether the instructions are there; a constant, so that a branch on it costs nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.boolean, _enabled(context))

    return types.boolean(), generate


has_vectors: Any = intrinsic(_has_vectors)


def _pull_vectors(typing: Any, symbols: Any, first: Any, states: Any, lookup: Any, data: Any, position: Any) -> Any:
    """Decode entries ``first`` to ``first + 31``; the next 64 bytes must lie inside ``data``. The next position."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not _enabled(context):
            return arguments[5]
        code = _Builder(context, builder, signature, arguments)
        row, position = builder.shl(arguments[1], code.number(2)), arguments[5]
        low_12, twelve = code.everywhere(4095), code.everywhere(12)
        for part in range(0, 128, 64):
            address = code.memory(2, code.number(part), code.words)
            state = builder.load(address, align=4)
            entry = code.gather(3, builder.and_(state, low_12))
            out = code.memory(0, builder.add(row, code.number(part)), code.words)
            builder.store(builder.lshr(entry, code.everywhere(24)), out, align=4)
            frequency = builder.add(builder.and_(entry, low_12), code.everywhere(1))
            place = builder.and_(builder.lshr(entry, twelve), low_12)
            state = builder.add(builder.mul(frequency, builder.lshr(state, twelve)), place)
            more = builder.icmp_unsigned("<", state, code.everywhere(1 << 16))
            words = code.expanding_load(code.memory(4, position, code.half), more)
            longer = builder.or_(builder.shl(state, code.everywhere(16)), builder.zext(words, code.words))
            builder.store(builder.select(more, longer, state), address, align=4)
            position = builder.add(position, code.num_bytes_of(more))
        return position

    return types.int64(symbols, types.int64, states, lookup, data, types.int64), generate


pull_vectors: Any = intrinsic(_pull_vectors)


def _push_vectors(
    typing: Any, symbols: Any, first: Any, states: Any, spans: Any, multipliers: Any, words: Any, position: Any
) -> Any:
    """Encode entries ``first`` to ``first + 31``, their words before word ``position``. The new position."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not _enabled(context):
            return arguments[6]
        code = _Builder(context, builder, signature, arguments)
        row, end = builder.shl(arguments[1], code.number(2)), builder.shl(arguments[6], code.number(1))
        sixteen = code.everywhere(16)
        for part in (64, 0):
            symbol = builder.load(code.memory(0, builder.add(row, code.number(part)), code.words), align=4)
            span = code.gather(3, symbol)
            frequency, begin = builder.and_(span, code.everywhere(0xFFFF)), builder.lshr(span, sixteen)
            address = code.memory(2, code.number(part), code.words)
            state = builder.load(address, align=4)
            full = builder.icmp_unsigned(">=", builder.lshr(state, code.everywhere(20)), frequency)
            end = builder.sub(end, code.num_bytes_of(full))
            code.compressing_store(builder.trunc(state, code.halves), code.memory(5, end, code.half), full)
            state = builder.select(full, builder.lshr(state, sixteen), state)
            # A multiplier is two words, the lower one first.
            low = builder.shl(symbol, code.everywhere(1))
            high = builder.zext(code.gather(4, builder.or_(low, code.everywhere(1))), code.longs)
            upper = builder.shl(high, code.everywhere(32, code.longs))
            multiplier = builder.or_(builder.zext(code.gather(4, low), code.longs), upper)
            product = builder.mul(builder.zext(state, code.longs), multiplier)
            quotient = builder.trunc(builder.lshr(product, code.everywhere(44, code.longs)), code.words)
            rest = builder.sub(code.everywhere(4096), frequency)
            builder.store(builder.add(builder.add(state, builder.mul(quotient, rest)), begin), address, align=4)
        return builder.lshr(end, code.number(1))

    return types.int64(symbols, types.int64, states, spans, multipliers, words, types.int64), generate


push_vectors: Any = intrinsic(_push_vectors)
