"""Signs of sixteen entries at once, and what they leave, in LLVM's own vectors: one look at each entry."""

from typing import Any

from thinwire.kernels.jit.compiling import cgutils, intrinsic, types
from thinwire.kernels.jit.simd import LANES, address, load, spread, store, vector


def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """What both functions below do; the second has three arguments more."""
    from llvmlite import ir

    floats, word = vector(ir.FloatType()), ir.IntType(LANES)

    def pointer(argument: int) -> Any:
        return address(context, builder, signature.args[argument], arguments[argument], arguments[argument + 1])

    leaves = len(arguments) > 5
    source, bits = pointer(0), pointer(3)
    left = pointer(6) if leaves else None
    scale = spread(builder, arguments[5]) if leaves else None
    with cgutils.for_range(builder, arguments[2]) as loop:
        index = builder.mul(loop.index, loop.index.type(LANES))
        entries = load(builder, builder.gep(source, [index]), floats)
        negative = builder.fcmp_ordered("<", entries, ir.Constant(floats, [0.0] * LANES))
        store(builder, builder.bitcast(negative, word), builder.gep(bits, [builder.udiv(index, index.type(8))]))
        if left is not None:
            remains = builder.select(negative, builder.fadd(entries, scale), builder.fsub(entries, scale))
            store(builder, remains, builder.gep(left, [index]))
    return context.get_dummy_value()


def _sign_groups(typing_context: Any, u: Any, at: Any, groups: Any, bits: Any, byte: Any) -> Any:
    """One bit for each of ``16 * groups`` entries, set where ``u[at:]`` is below 0, to ``bits[byte:]``.

    The first is the lowest of its byte. Nothing is checked: every array must reach as far.
    """
    index = types.intp
    return types.void(u, index, index, bits, index), _generate


def _sign_groups_leaving(
    typing_context: Any, u: Any, at: Any, groups: Any, bits: Any, byte: Any, scale: Any, out: Any, place: Any
) -> Any:
    """:data:`sign_groups`; ``u`` minus the signed scale goes to ``out[place:]``."""
    index = types.intp
    return types.void(u, index, index, bits, index, types.float32, out, index), _generate


sign_groups: Any = intrinsic(_sign_groups)
sign_groups_leaving: Any = intrinsic(_sign_groups_leaving)
