"""Signs of sixteen entries at once, and what they leave, in LLVM's own vectors: one look at each entry."""

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from thinwire.kernels.lanes import LANES, address, load, spread, store, vector


def _sign_groups(
    typing_context: Any, u: Any, at: Any, groups: Any, scale: Any, flags: Any, there: Any, out: Any, place: Any
) -> Any:
    """Bytes of 1 where ``u[at:]`` is below 0, else 0, to ``flags[there:]``; ``u`` minus the signed scale to ``out``.

    For ``16 * groups`` entries. Nothing is checked: every array must reach as far.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        floats = vector(ir.FloatType())

        def pointer(argument: int) -> Any:
            return address(context, builder, signature.args[argument], arguments[argument], arguments[argument + 1])

        source, marked, left = pointer(0), pointer(4), pointer(6)
        scale = spread(builder, arguments[3])
        with cgutils.for_range(builder, arguments[2]) as loop:
            index = builder.mul(loop.index, loop.index.type(LANES))
            entries = load(builder, builder.gep(source, [index]), floats)
            negative = builder.fcmp_ordered("<", entries, ir.Constant(floats, [0.0] * LANES))
            store(builder, builder.zext(negative, vector(ir.IntType(8))), builder.gep(marked, [index]))
            remains = builder.select(negative, builder.fadd(entries, scale), builder.fsub(entries, scale))
            store(builder, remains, builder.gep(left, [index]))
        return context.get_dummy_value()

    index = types.intp
    return types.void(u, index, index, types.float32, flags, index, out, index), generate


sign_groups: Any = intrinsic(_sign_groups)
