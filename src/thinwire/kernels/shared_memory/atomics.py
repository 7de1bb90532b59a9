"""Single atomic instructions of LLVM on an entry of an array, and what a thread does that waits.

Entries are int32, int64, float32 or float64. Nothing is checked: a position must lie inside the array. "Relaxed" is
LLVM's ``monotonic``: each access is whole and happens once, where the loop says it does, but orders nothing else.
"""

import sys
from typing import Any

from thinwire.kernels.jit.compiling import cgutils, helper, intrinsic, types
from thinwire.kernels.jit.hints import always_inline
from thinwire.kernels.jit.simd import address

_PATIENCE = 100
"""How often a waiting thread looks again before it lets others have its core."""


def _word(context: Any, builder: Any, kind: Any, array: Any, position: Any) -> tuple[Any, Any, int]:
    """Pointer to an entry as an integer of its size, the type of the integer, and its bytes."""
    from llvmlite import ir

    num_bytes = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    word = ir.IntType(8 * num_bytes)
    return builder.bitcast(address(context, builder, kind, array, position), word.as_pointer()), word, num_bytes


def _load_shared(typing_context: Any, array: Any, position: Any) -> Any:
    """An entry that others may write meanwhile: read whole and once, in relaxed order, never kept in a register."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, _, num_bytes = _word(context, builder, signature.args[0], *arguments)
        return builder.bitcast(
            builder.load_atomic(pointer, "monotonic", num_bytes), context.get_data_type(signature.return_type)
        )

    return array.dtype(array, types.intp), generate


def _make_store(ordering: str) -> Any:
    def store_shared(typing_context: Any, array: Any, position: Any, value: Any) -> Any:
        """Write an entry, whole and once."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer, word, num_bytes = _word(context, builder, signature.args[0], *arguments[:2])
            builder.store_atomic(builder.bitcast(arguments[2], word), pointer, ordering, num_bytes)
            return context.get_dummy_value()

        return types.void(array, types.intp, array.dtype), generate

    return intrinsic(store_shared)


def _fetch_and_add(typing_context: Any, array: Any, position: Any, amount: Any) -> Any:
    """Add to an entry in one atomic operation, in relaxed order; what it was before.

    An integer takes one instruction (``lock xadd`` on x86-64). Processors have none for floats: LLVM writes a loop of
    compare-and-swap on the bits, from one load on.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = address(context, builder, signature.args[0], *arguments[:2])
        operation = "fadd" if isinstance(array.dtype, types.Float) else "add"
        return builder.atomic_rmw(operation, pointer, arguments[2], "monotonic")

    return array.dtype(array, types.intp, array.dtype), generate


def _make_exchange(ordering: str) -> Any:
    def exchange_if(typing_context: Any, array: Any, position: Any, expected: Any, value: Any) -> Any:
        """Write an entry if it has the bits that are expected, in one atomic operation; whether it had them."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer, word, _ = _word(context, builder, signature.args[0], *arguments[:2])
            old, new = (builder.bitcast(each, word) for each in arguments[2:])
            return builder.extract_value(builder.cmpxchg(pointer, old, new, ordering, "monotonic"), 1)

        return types.boolean(array, types.intp, array.dtype, array.dtype), generate

    return intrinsic(exchange_if)


def _test_and_set(typing_context: Any, locks: Any, position: Any) -> Any:
    """Write 1 to an integer and return what it was; what the lock guards is read after it (``acquire``)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = address(context, builder, signature.args[0], *arguments)
        one = context.get_constant(signature.return_type, 1)
        return builder.atomic_rmw("xchg", pointer, one, "acquire")

    return locks.dtype(locks, types.intp), generate


def _pause(typing_context: Any) -> Any:
    """Tell the processor that the thread spins, so that it leaves its resources to others; nothing where it cannot."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        triple = context.codegen().magic_tuple()[0]
        word = ir.IntType(32)
        if triple.startswith(("x86_64", "i686")):
            name, given = "llvm.x86.sse2.pause", []
        elif triple.startswith(("aarch64", "arm64")):
            name, given = "llvm.aarch64.hint", [ir.Constant(word, 1)]
        else:
            return context.get_dummy_value()
        kind = ir.FunctionType(ir.VoidType(), [word] * len(given))
        builder.call(builder.module.declare_intrinsic(name, (), kind), given)
        return context.get_dummy_value()

    return types.void(), generate


def _yield_core(typing_context: Any) -> Any:
    """Let another thread have the core (``sched_yield``): who holds a lock may be waiting for one. Not on Windows."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        if sys.platform != "win32":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


load_shared: Any = intrinsic(_load_shared)
store_shared: Any = _make_store("monotonic")
store_release: Any = _make_store("release")
fetch_and_add: Any = intrinsic(_fetch_and_add)
exchange_if: Any = _make_exchange("monotonic")
exchange_acquire: Any = _make_exchange("acquire")
exchange_release: Any = _make_exchange("release")
test_and_set: Any = intrinsic(_test_and_set)
_pause_now: Any = intrinsic(_pause)
_yield_now: Any = intrinsic(_yield_core)


@helper
def wait(turns: int) -> int:
    """Wait a moment for another thread, after so many waits; how many there were then."""
    if turns < _PATIENCE:
        _pause_now()
    else:
        _yield_now()
    return turns + 1


@helper
def add_racy(array: Any, position: int, amount: Any) -> None:
    """Read an entry, add, write it: what another thread writes between the two is lost."""
    always_inline()
    store_shared(array, position, load_shared(array, position) + amount)


@helper
def add_exchanging(array: Any, position: int, amount: Any) -> None:
    """Read an entry, add, write it if it is still what was read, else begin again (compare-and-swap)."""
    always_inline()
    old = load_shared(array, position)
    while not exchange_if(array, position, old, old + amount):
        old = load_shared(array, position)
