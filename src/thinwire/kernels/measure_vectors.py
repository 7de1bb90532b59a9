"""What :mod:`thinwire.kernels.measures` does to a block of entries, in LLVM's own vectors.

Nothing is checked: what is read and written must lie inside the arrays.
"""

from typing import Any, Final

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from thinwire.kernels.lanes import LANES, address, ask_for, constants, load, spread, store, variable, vector

AHEAD: Final = 1024
"""Entries that memory is asked for before they are needed."""

FOLDED: Final = 512
"""Entries of the block that :data:`fold_squares` and :data:`fold_magnitudes` take."""

_WIDE = 8


def _accumulate(asked: tuple[int, ...]) -> Any:
    def accumulate(typing_context: Any, x: Any, residual: Any, decay: Any, start: Any, u: Any, groups: Any) -> Any:
        """``u[j] = decay * residual[start + j] + x[start + j]`` for ``16 * groups`` entries.

        Memory is asked for the next of ``x`` (0), of ``residual`` (1) or of both. What is asked for may lie outside
        of the arrays: nothing waits for it, nothing fails.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            from llvmlite import ir

            floats = vector(ir.FloatType())
            sources = [address(context, builder, signature.args[a], arguments[a], arguments[3]) for a in (0, 1)]
            target = address(context, builder, signature.args[4], arguments[4], arguments[5].type(0))
            decay = spread(builder, arguments[2])
            with cgutils.for_range(builder, arguments[5]) as loop:
                index = builder.mul(loop.index, loop.index.type(LANES))
                ahead = builder.add(index, index.type(AHEAD))
                for source in asked:
                    ask_for(builder, builder.gep(sources[source], [ahead]))
                entries, kept = (load(builder, builder.gep(source, [index]), floats) for source in sources)
                store(builder, builder.fadd(builder.fmul(decay, kept), entries), builder.gep(target, [index]))
            return context.get_dummy_value()

        return types.void(x, residual, types.float32, types.intp, u, types.intp), generate

    return intrinsic(accumulate)


def _largest_magnitude(typing_context: Any, u: Any, groups: Any) -> Any:
    """The largest magnitude of ``16 * groups`` entries, as its bits: so ordered NaN is the largest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        ints = vector(ir.IntType(32))
        source = address(context, builder, signature.args[0], arguments[0], arguments[1].type(0))
        largest = variable(builder, constants(ir.IntType(32), [0] * LANES))
        with cgutils.for_range(builder, arguments[1]) as loop:
            place = builder.gep(source, [builder.mul(loop.index, loop.index.type(LANES))])
            bits = builder.and_(load(builder, place, ints), constants(ir.IntType(32), [0x7FFFFFFF] * LANES))
            seen = builder.load(largest)
            builder.store(builder.select(builder.icmp_unsigned(">", bits, seen), bits, seen), largest)
        left = builder.load(largest)
        while left.type.count > 1:
            low, high = _halves(builder, left)
            left = builder.select(builder.icmp_unsigned(">", low, high), low, high)
        return builder.extract_element(left, ir.Constant(ir.IntType(32), 0))

    return types.uint32(u, types.intp), generate


def _fold(squared: bool) -> Any:
    def fold_block(typing_context: Any, u: Any) -> Any:
        """:func:`thinwire.kernels.measures.fold` of the squares or magnitudes, in f64, of exactly 512 entries.

        All of it happens in registers.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            from llvmlite import ir

            index, wide = ir.IntType(64), vector(ir.DoubleType(), _WIDE)
            source = address(context, builder, signature.args[0], arguments[0], index(0))

            def folded(first: int, distance: int) -> Any:
                """Of the vectors ``first, first + distance, ...``."""
                if distance == FOLDED // _WIDE:
                    place = builder.gep(source, [index(first * _WIDE)])
                    value = builder.fpext(load(builder, place, vector(ir.FloatType(), _WIDE)), wide)
                    if squared:
                        return builder.fmul(value, value)
                    bits = builder.bitcast(value, vector(index, _WIDE))
                    return builder.bitcast(builder.and_(bits, constants(index, [(1 << 63) - 1] * _WIDE)), wide)
                return builder.fadd(folded(first, 2 * distance), folded(first + distance, 2 * distance))

            left = folded(0, 1)
            while left.type.count > 1:
                low, high = _halves(builder, left)
                left = builder.fadd(low, high)
            return builder.extract_element(left, ir.Constant(ir.IntType(32), 0))

        return types.float64(u), generate

    return intrinsic(fold_block)


def _bits_of(typing_context: Any, number: Any) -> Any:
    """The bits of an f32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


def _float_of(typing_context: Any, bits: Any) -> Any:
    """The f32 of these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


def _halves(builder: Any, whole: Any) -> tuple[Any, Any]:
    """The lower and the upper half of a vector."""
    from llvmlite import ir

    half, nothing = whole.type.count // 2, ir.Constant(whole.type, ir.Undefined)
    parts = (range(half), range(half, 2 * half))
    low, high = (builder.shuffle_vector(whole, nothing, constants(ir.IntType(32), list(part))) for part in parts)
    return low, high


accumulate_groups: Any = _accumulate((0, 1))
accumulate_groups_asking_for_x: Any = _accumulate((0,))
largest_magnitude: Any = intrinsic(_largest_magnitude)
fold_squares: Any = _fold(True)
fold_magnitudes: Any = _fold(False)
bits_of: Any = intrinsic(_bits_of)
float_of: Any = intrinsic(_float_of)
