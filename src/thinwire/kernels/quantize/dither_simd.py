"""Sixteen entries rounded at once, in LLVM's own vectors: as plain code the loop takes about twice as long."""

from typing import Any

from thinwire.kernels.jit.compiling import cgutils, intrinsic, types
from thinwire.kernels.jit.simd import LANES, address, constants, load, prefetch, spread, store, variable, vector


def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """What both functions below do; the second has two arguments more."""
    from llvmlite import ir

    kinds = signature.args
    f32, i16, i32 = ir.FloatType(), ir.IntType(16), ir.IntType(32)
    floats, ints, halves = vector(f32), vector(i32), vector(i16, 2 * LANES)
    codes_kind = vector(context.get_data_type(kinds[7].dtype))

    def all_lanes(number: int) -> Any:
        return constants(i32, [number] * LANES)

    def pointer(argument: int, position: Any) -> Any:
        return address(context, builder, kinds[argument], arguments[argument], position)

    source, drawn = pointer(0, arguments[1]), pointer(6, arguments[8])
    asked = pointer(12, arguments[13]) if len(kinds) > 12 else None
    codes, left = pointer(7, arguments[8]), pointer(9, arguments[10])
    most, unit = spread(builder, arguments[4]), spread(builder, arguments[5])
    # A power of two on either factor changes no digit of a product that is cut off below 2**-16.
    fixed = ir.Constant(floats, [65536.0] * LANES)
    inverse, highest = builder.fmul(spread(builder, arguments[3]), fixed), builder.fmul(most, fixed)
    zero = builder.fptosi(most, ints)
    # The largest low halves so far, all ones where a number and what it is compared with were equal.
    equals = variable(builder, constants(i16, [0] * (2 * LANES)))

    def round_all(convert: Any) -> None:
        with cgutils.for_range(builder, arguments[2]) as loop:
            index = builder.mul(loop.index, loop.index.type(LANES))
            if asked is not None:
                prefetch(context, builder, builder.gep(asked, [index]))
            entries = load(builder, builder.gep(source, [index]), floats)
            bits = builder.and_(builder.bitcast(entries, ints), all_lanes(0x7FFFFFFF))
            ratio = builder.fmul(builder.bitcast(bits, floats), inverse)
            # NaN becomes the largest.
            ratio = builder.select(builder.fcmp_ordered("<", ratio, highest), ratio, highest)
            random = load(builder, builder.gep(drawn, [index]), vector(i16))
            complement = builder.xor(builder.zext(random, ints), all_lanes(0xFFFF))
            carried = builder.add(convert(ratio, ints), complement)
            low, seen = builder.bitcast(carried, halves), builder.load(equals)
            builder.store(builder.select(builder.icmp_unsigned(">", low, seen), low, seen), equals)
            level = builder.lshr(carried, all_lanes(16))
            negative = builder.fcmp_ordered("<", entries, ir.Constant(floats, [0.0] * LANES))
            level = builder.select(negative, builder.neg(level), level)
            store(builder, builder.trunc(builder.add(level, zero), codes_kind), builder.gep(codes, [index]))
            remains = builder.fsub(entries, builder.fmul(unit, builder.sitofp(level, floats)))
            store(builder, remains, builder.gep(left, [builder.mul(loop.index, arguments[11])]))

    # Below 2**31 a number is converted by one instruction that every processor has, above it by several.
    is_small = builder.fcmp_ordered("<", arguments[4], f32(32768.0))
    with builder.if_else(is_small) as (small, large):
        with small:
            round_all(builder.fptosi)
        with large:
            round_all(builder.fptoui)
    low = builder.and_(builder.bitcast(builder.load(equals), ints), all_lanes(0xFFFF))
    undecided = builder.bitcast(builder.icmp_unsigned("==", low, all_lanes(0xFFFF)), ir.IntType(LANES))
    return builder.icmp_unsigned("==", undecided, undecided.type(0))


def _round_groups(
    typing_context: Any,
    u: Any,
    at: Any,
    groups: Any,
    inverse: Any,
    most: Any,
    unit: Any,
    coarse: Any,
    codes: Any,
    there: Any,
    out: Any,
    place: Any,
    step: Any,
) -> Any:
    """Codes of ``u[at : at + 16 * groups]`` as ``coarse[there:]`` says, to ``codes[there:]``; what is left to ``out``.

    Group ``g`` leaves ``out[place + g * step :]``. The result is false if ``coarse`` may not decide all entries. Every
    array must reach as far.

    The ratio to the unit is at most ``most``, below ``2**16``, and is taken with 16 bits behind its point, cut off
    below. Where these are more than the random number, the level is the next one: the sum of the ratio and of the
    complement of the number carries. Where they are equal, what was cut off counts.
    """
    index, real = types.intp, types.float32
    return types.boolean(u, index, index, real, real, real, coarse, codes, index, out, index, index), _generate


def _round_groups_asking(
    typing_context: Any,
    u: Any,
    at: Any,
    groups: Any,
    inverse: Any,
    most: Any,
    unit: Any,
    coarse: Any,
    codes: Any,
    there: Any,
    out: Any,
    place: Any,
    step: Any,
    asked: Any,
    ahead: Any,
) -> Any:
    """:data:`round_groups`; memory is asked for ``asked[ahead : ahead + 16 * groups]``, which may not exist."""
    index, real = types.intp, types.float32
    kinds = (u, index, index, real, real, real, coarse, codes, index, out, index, index, asked, index)
    return types.boolean(*kinds), _generate


round_groups: Any = intrinsic(_round_groups)
round_groups_asking: Any = intrinsic(_round_groups_asking)
