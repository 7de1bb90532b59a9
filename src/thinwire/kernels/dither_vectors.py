"""Sixteen entries rounded at once, in LLVM's own vectors: as plain code the loop takes about twice as long."""

from typing import Any

from numba import types
from numba.extending import intrinsic

from thinwire.kernels.lanes import LANES, address, load, spread, store, vector


def _round_group(
    typing: Any, u: Any, at: Any, inverse: Any, most: Any, unit: Any, coarse: Any, codes: Any, out: Any, place: Any
) -> Any:
    """Codes of ``u[at : at + 16]`` as ``coarse`` says, to ``codes[at:]``; what they leave, to ``out[place:]``.

    The result has a bit set for each entry that ``coarse`` alone does not decide. Every array must reach as far.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        kinds = signature.args
        f32, i32, mask = ir.FloatType(), ir.IntType(32), ir.IntType(LANES)
        floats, ints = vector(f32), vector(i32)

        def lanes(number: float) -> Any:
            return ir.Constant(floats, [number] * LANES)

        def pointer(argument: int, position: Any) -> Any:
            return address(context, builder, kinds[argument], arguments[argument], position)

        at = arguments[1]
        inverse, most, unit = (spread(builder, arguments[argument]) for argument in (2, 3, 4))
        entries = load(builder, pointer(0, at), floats)
        bits = builder.and_(builder.bitcast(entries, ints), ir.Constant(ints, [0x7FFFFFFF] * LANES))
        ratio = builder.fmul(builder.bitcast(bits, floats), inverse)
        ratio = builder.select(builder.fcmp_ordered("<", ratio, most), ratio, most)
        level = builder.fptosi(ratio, ints)
        above = builder.fmul(builder.fsub(ratio, builder.sitofp(level, floats)), lanes(65536.0))
        drawn = load(builder, pointer(5, at), vector(ir.IntType(16)))
        excess = builder.fsub(above, builder.sitofp(builder.zext(drawn, ints), floats))
        up = builder.fcmp_ordered(">", excess, lanes(0.0))
        undecided = builder.and_(up, builder.fcmp_ordered("<", excess, lanes(1.0)))
        level = builder.add(level, builder.zext(up, ints))
        negative = builder.fcmp_ordered("<", entries, lanes(0.0))
        level = builder.select(negative, builder.neg(level), level)
        code = builder.add(level, builder.fptosi(most, ints))
        store(builder, builder.trunc(code, vector(context.get_data_type(kinds[6].dtype))), pointer(6, at))
        left = builder.fsub(entries, builder.fmul(unit, builder.sitofp(level, floats)))
        store(builder, left, pointer(7, arguments[8]))
        return builder.zext(builder.bitcast(undecided, mask), i32)

    real = types.float32
    return types.uint32(u, types.intp, real, real, real, coarse, codes, out, types.intp), generate


round_group: Any = intrinsic(_round_group)
