"""What :mod:`.block_norms` does to a block of entries, in LLVM's own vectors: one look at each entry.

A block is made and measured at once. Who reads what was just written has to wait until it is there.
Nothing is checked: what is read and written must lie inside the arrays.
"""

from collections.abc import Callable
from typing import Any, Final

from thinwire.kernels.jit.compiling import cgutils, intrinsic, types
from thinwire.kernels.jit.simd import LANES, address, constants, is_zen, load, prefetch, spread, store, variable, vector

AHEAD: Final = 1024
"""Entries that memory is asked for before they are needed."""

SHORT_FOLD: Final = 512
"""Entries of the block that :data:`fold_short_magnitudes` and :data:`fold_short_squares` take."""

LONG_FOLD: Final = 1024
"""Entries of the block that :data:`fold_long_magnitudes` and :data:`fold_long_squares` take."""

_Group = Callable[[Any], Any]


def _for_each_source(
    context: Any, builder: Any, signature: Any, arguments: Any, body: Callable[[_Group], None]
) -> None:
    """Emit ``body`` for each way to make entries: what it is given makes the group of sixteen at an index of ``u``.

    ``u[j]`` is ``decay * residual[start + j] + x[start + j]``, or ``x[start + j]`` alone. Memory is asked for the next
    of ``x`` and, if wanted, of ``residual``. What is asked for may lie outside of the arrays: nothing waits for it,
    nothing fails. A Zen is not asked for both: it reads two vectors ahead by itself. Signs by tensors take a Zen 3 1.87
    copies, and 2.10 if it is asked.
    """
    from llvmlite import ir

    floats = vector(ir.FloatType())
    x, residual = (address(context, builder, signature.args[a], arguments[a], arguments[5]) for a in (0, 1))
    target = address(context, builder, signature.args[6], arguments[6], arguments[5].type(0))
    decay = spread(builder, arguments[2])
    # A second request for the same costs less than a further copy of the code.
    asked = builder.select(arguments[4], residual, x)
    # To be asked for what is being read costs a Zen less than a branch.
    near, far = (arguments[5].type(distance) for distance in (0 if is_zen(context) else AHEAD, AHEAD))
    distance = builder.select(arguments[4], near, far)

    def emit(has_residual: bool) -> None:
        def group(index: Any) -> Any:
            ahead = builder.add(index, distance)
            for source in (x, asked)[: 1 + has_residual]:
                prefetch(context, builder, builder.gep(source, [ahead]))
            entries = load(builder, builder.gep(x, [index]), floats)
            if has_residual:
                kept = load(builder, builder.gep(residual, [index]), floats)
                entries = builder.fadd(builder.fmul(decay, kept), entries)
            store(builder, entries, builder.gep(target, [index]))
            return entries

        body(group)

    with builder.if_else(arguments[3]) as (remembering, plain):
        with remembering:
            emit(True)
        with plain:
            emit(False)


def _kinds(x: Any, residual: Any, u: Any) -> tuple[Any, ...]:
    return (x, residual, types.float32, types.boolean, types.boolean, types.intp, u)


def _make_groups(
    typing_context: Any,
    x: Any,
    residual: Any,
    decay: Any,
    has_residual: Any,
    prefetches: Any,
    start: Any,
    u: Any,
    groups: Any,
) -> Any:
    """``16 * groups`` entries from ``start`` on to ``u``: the residual times ``decay``, rounded, plus ``x``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def body(group: _Group) -> None:
            with cgutils.for_range(builder, arguments[7]) as loop:
                group(builder.mul(loop.index, loop.index.type(LANES)))

        _for_each_source(context, builder, signature, arguments, body)
        return context.get_dummy_value()

    return types.void(*_kinds(x, residual, u), types.intp), generate


def _make_largest(
    typing_context: Any,
    x: Any,
    residual: Any,
    decay: Any,
    has_residual: Any,
    prefetches: Any,
    start: Any,
    u: Any,
    groups: Any,
) -> Any:
    """:data:`make_groups`, and their largest magnitude, as its bits: so ordered NaN is the largest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        ints = vector(ir.IntType(32))
        largest = variable(builder, constants(ir.IntType(32), [0] * LANES))

        def body(group: _Group) -> None:
            with cgutils.for_range(builder, arguments[7]) as loop:
                entries = builder.bitcast(group(builder.mul(loop.index, loop.index.type(LANES))), ints)
                bits = builder.and_(entries, constants(ir.IntType(32), [0x7FFFFFFF] * LANES))
                seen = builder.load(largest)
                builder.store(builder.select(builder.icmp_unsigned(">", bits, seen), bits, seen), largest)

        _for_each_source(context, builder, signature, arguments, body)
        left = builder.load(largest)
        while left.type.count > 1:
            low, high = _halves(builder, left)
            left = builder.select(builder.icmp_unsigned(">", low, high), low, high)
        return builder.extract_element(left, ir.Constant(ir.IntType(32), 0))

    return types.uint32(*_kinds(x, residual, u), types.intp), generate


def _make_fold(squared: bool, count: int) -> Any:
    def make_fold(
        typing_context: Any, x: Any, residual: Any, decay: Any, has_residual: Any, prefetches: Any, start: Any, u: Any
    ) -> Any:
        """:data:`make_groups` of a whole block, and :func:`thinwire.kernels.reduce.block_norms.fold` of it in f64.

        What is folded, squares or magnitudes, never leaves the registers.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            from llvmlite import ir

            index, wide = ir.IntType(64), vector(ir.DoubleType())
            target = address(context, builder, signature.args[6], arguments[6], index(0))
            total = variable(builder, ir.Constant(ir.DoubleType(), 0.0))
            # Memory is read in its order, or the processor would not read ahead: the last sixteen groups meet what was
            # made before them.
            before = count // LANES - LANES

            def widened(entries: Any) -> Any:
                value = builder.fpext(entries, wide)
                if squared:
                    return builder.fmul(value, value)
                bits = builder.bitcast(value, vector(index))
                return builder.bitcast(builder.and_(bits, constants(index, [(1 << 63) - 1] * LANES)), wide)

            def body(group: _Group) -> None:
                with cgutils.for_range(builder, index(before)) as loop:
                    group(builder.mul(loop.index, loop.index.type(LANES)))

                def column(first: int, distance: int) -> Any:
                    """Of the groups ``first, first + distance, ...``."""
                    if distance < count // LANES:
                        return builder.fadd(column(first, 2 * distance), column(first + distance, 2 * distance))
                    if first >= before:
                        return widened(group(index(first * LANES)))
                    return widened(load(builder, builder.gep(target, [index(first * LANES)]), vector(ir.FloatType())))

                half = LANES // 2
                sums = [column(first, LANES) for first in range(half)]
                sums = [builder.fadd(above, column(half + first, LANES)) for first, above in enumerate(sums)]
                while len(sums) > 1:
                    half = len(sums) // 2
                    sums = [builder.fadd(above, below) for above, below in zip(sums[:half], sums[half:], strict=True)]
                left = sums[0]
                while left.type.count > 1:
                    low, high = _halves(builder, left)
                    left = builder.fadd(low, high)
                builder.store(builder.extract_element(left, ir.Constant(ir.IntType(32), 0)), total)

            _for_each_source(context, builder, signature, arguments, body)
            return builder.load(total)

        return types.float64(*_kinds(x, residual, u)), generate

    return intrinsic(make_fold)


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


make_groups: Any = intrinsic(_make_groups)
make_largest: Any = intrinsic(_make_largest)
fold_short_magnitudes: Any = _make_fold(False, SHORT_FOLD)
fold_short_squares: Any = _make_fold(True, SHORT_FOLD)
fold_long_magnitudes: Any = _make_fold(False, LONG_FOLD)
fold_long_squares: Any = _make_fold(True, LONG_FOLD)
bits_of: Any = intrinsic(_bits_of)
float_of: Any = intrinsic(_float_of)
