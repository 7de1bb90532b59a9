"""How the compiler may treat a kernel: how wide its vectors are, what is inlined, who keeps memory alive."""

from typing import Any

from thinwire.kernels.jit.compiling import intrinsic, types


def _prefer_wide_vectors(typing_context: Any) -> Any:
    """Let the calling kernel use vectors of 512 bits where the processor has them; no result depends on it.

    LLVM prefers 256 bits on many processors with AVX-512, since a few wide operations slow down what runs beside
    them. A kernel that does nothing but vector operations for milliseconds is faster with them.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # The set's own `add` knows a fixed list of names; LLVM takes any attribute in quotes.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


def _always_inline(typing_context: Any) -> Any:
    """Make the calling kernel part of every kernel that calls it.

    An array is seven arguments and a reference count: for a few hundred entries the call costs as much as the work.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("alwaysinline")
        return context.get_dummy_value()

    return types.void(), generate


def _borrowed(typing_context: Any, array: Any) -> Any:
    """The same array without a share in its memory, which the caller of the kernel must keep alive.

    Every slice of an array counts a reference up and down again, in steps that no thread can interrupt. Slices of
    this one do not: for blocks of a few hundred entries that is a large part of the work.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        held.meminfo = ir.Constant(held.meminfo.type, None)
        held.parent = ir.Constant(held.parent.type, None)
        return held._getvalue()

    return array(array), generate


borrowed: Any = intrinsic(_borrowed)
prefer_wide_vectors: Any = intrinsic(_prefer_wide_vectors)
always_inline: Any = intrinsic(_always_inline)
