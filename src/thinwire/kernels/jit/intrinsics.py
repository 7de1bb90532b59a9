"""Instructions that Numba does not offer, and small loops that many kernels share."""

from typing import Any

import numpy as np

from thinwire.kernels.jit.compiling import arrayobj, cgutils, helper, imputils, intrinsic, types


def _pointer(typing_context: Any, address: Any) -> Any:
    """The memory at an address, as :func:`numba.carray` takes it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


pointer: Any = intrinsic(_pointer)


def _count_trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Number of zero bits below the lowest set bit of a uint64; ``word`` must not be 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


count_trailing_zeros: Any = intrinsic(_count_trailing_zeros)


def _count_leading_zeros(typing_context: Any, word: Any) -> Any:
    """Number of zero bits above the highest set bit of a uint64; 64 for 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


count_leading_zeros: Any = intrinsic(_count_leading_zeros)


def _load_word(typing_context: Any, data: Any, position: Any) -> Any:
    """The eight bytes of ``data`` from ``position`` on as one uint64; all must lie inside."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.gep(array.data, [arguments[1]])
        word = ir.IntType(64)
        return builder.load(builder.bitcast(address, word.as_pointer()), align=1)

    return types.uint64(data, types.intp), generate


load_word: Any = intrinsic(_load_word)


def _store_word(typing_context: Any, data: Any, position: Any, word: Any) -> Any:
    """Write a uint64 to the eight bytes of ``data`` from ``position`` on; all must lie inside."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.gep(array.data, [arguments[1]])
        builder.store(arguments[2], builder.bitcast(address, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(data, types.intp, types.uint64), generate


store_word: Any = intrinsic(_store_word)


def _count_ones(typing_context: Any, word: Any) -> Any:
    """Number of set bits of a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


count_ones: Any = intrinsic(_count_ones)


def _take_number(typing_context: Any, counter: Any) -> Any:
    """The first entry of an int64 array, which is raised by one: each of several threads takes another number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(counter), generate


take_number: Any = intrinsic(_take_number)


def _crc32c_instruction(context: Any) -> tuple[str, int] | None:
    """The LLVM intrinsic that takes eight bytes into a CRC-32C, and the width of its state; None if there is none.

    What counts is the processor that Numba compiles for, which ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` may
    set to less than the machine's own; Numba keeps the kernels of different targets apart on disk.
    """
    triple, _, features = context.codegen().magic_tuple()
    enabled = features.split(",")
    if triple.startswith("x86_64") and "+crc32" in enabled:
        return "llvm.x86.sse42.crc32.64.64", 64
    if triple.startswith(("aarch64", "arm64")) and "+crc" in enabled:
        return "llvm.aarch64.crc32cx", 32
    return None


def _has_crc32c(typing_context: Any) -> Any:
    """Whether :func:`crc32c_word` is an instruction here; a constant, so that a branch on it costs nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.boolean, _crc32c_instruction(context) is not None)

    return types.boolean(), generate


has_crc32c: Any = intrinsic(_has_crc32c)


def _crc32c_word(typing_context: Any, state: Any, word: Any) -> Any:
    """The state (uint64, below ``2**32``) after the eight bytes of a uint64; 0 where :func:`has_crc32c` is false."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        instruction = _crc32c_instruction(context)
        if instruction is None:
            return context.get_constant(types.uint64, 0)
        name, width = instruction
        word = ir.IntType(64)
        state = ir.IntType(width)
        function = builder.module.declare_intrinsic(name, (), ir.FunctionType(state, [state, word]))
        if width == 64:
            return builder.call(function, arguments)
        return builder.zext(builder.call(function, [builder.trunc(arguments[0], state), arguments[1]]), word)

    return types.uint64(types.uint64, types.uint64), generate


crc32c_word: Any = intrinsic(_crc32c_word)


def _make_array(clears: bool) -> Any:
    def make_array(typing_context: Any, count: Any, kind: Any) -> Any:
        """``numpy.empty(count, kind)``, or ``numpy.zeros``: Numba's own are compiled for every pair of arguments."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = arrayobj._empty_nd_impl(context, builder, signature.return_type, [arguments[0]])
            if clears:
                cgutils.memset(builder, array.data, builder.mul(array.itemsize, array.nitems), 0)
            return array._getvalue()

        return types.Array(kind.dtype, 1, "C")(types.intp, kind), generate

    return intrinsic(make_array)


empty: Any = _make_array(False)
zeros: Any = _make_array(True)


def _seen_as(typing_context: Any, array: Any, kind: Any) -> Any:
    """``array.view(kind)`` of a contiguous vector, whose bytes fill whole numbers of the kind."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = context.make_array(signature.args[0])(context, builder, arguments[0])
        seen = context.make_array(signature.return_type)(context, builder)
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
        num_bytes = builder.mul(source.itemsize, source.nitems)
        arrayobj.populate_array(
            seen, builder.bitcast(source.data, seen.data.type), [builder.udiv(num_bytes, size)], [size], size,
            source.meminfo, source.parent,
        )  # fmt: skip
        return imputils.impl_ret_borrowed(context, builder, signature.return_type, seen._getvalue())

    assert array.layout == "C"
    return array.copy(dtype=kind.dtype)(array, kind), generate


seen_as: Any = intrinsic(_seen_as)


@helper
def copy_to(target: Any, source: Any) -> None:
    """``target[:] = source`` of one length, for other kernels.

    The error of Numba's own assignment prints both shapes: what makes strings of them takes seconds to compile.
    """
    if target.size != source.size:
        raise ValueError("entries are copied to as many others")
    for j in range(source.size):
        target[j] = source[j]


@helper
def first_from(places: Any, least: int) -> int:
    """How many of ascending places lie below ``least``."""
    low = 0
    high = places.size
    while low < high:
        middle = (low + high) >> 1
        if places[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low


@helper
def load_word_padded(data: Any, position: int) -> Any:
    """The eight bytes of ``data`` from ``position`` on as one uint64; what lies outside counts as zero."""
    if position + 8 <= data.size:
        return load_word(data, position)
    word = np.uint64(0)
    for byte in range(max(0, data.size - position)):
        word |= np.uint64(data[position + byte]) << np.uint64(8 * byte)
    return word


@helper
def write_bits(data: Any, position: Any, pending: Any, num_pending: Any, bits: Any, num_bits: Any) -> Any:
    """Write the ``num_bits`` bits of a uint64 (at most 56, no others set) after the at most 7 in ``pending``.

    They go to the bytes of ``data`` from ``position`` on, the lowest first, and zeros to the seven bytes after them,
    which must lie inside. Returns the position of the first byte that is not full, what it holds, and how many bits.
    """
    pending |= bits << np.uint64(num_pending)
    num_pending += num_bits
    store_word(data, position, pending)
    num_full = num_pending >> 3
    return position + num_full, pending >> np.uint64(8 * num_full), num_pending & 7


TAKEN_AT_ONCE = 3
"""Entries that :func:`take_marked` writes without asking how many there are."""

LAST_BIT = np.uint64(1 << 63)
"""Set where no bit is left: the last place of a word."""


@helper
def take_marked(word: Any, first: Any, offset: Any, source: Any, places: Any, values: Any, num: Any) -> Any:
    """Append ``offset + i`` to ``places`` and ``source[i]`` to ``values`` for ``i = first + bit``, bit by set bit.

    ``num`` are in them already; how many there are then is returned. Up to ``TAKEN_AT_ONCE`` entries behind these are
    written over: how many bits are set cannot be predicted, and a wrong guess costs more than a few.
    """
    end = num + np.int64(count_ones(word))
    for _ in range(TAKEN_AT_ONCE):
        # Where no bit is left, that of the last place.
        place = first + np.int64(count_trailing_zeros(word | LAST_BIT))
        places[np.uint64(num)] = offset + place
        values[np.uint64(num)] = source[np.uint64(place)]
        num += 1
        word &= word - np.uint64(1)
    while word != 0:
        place = first + np.int64(count_trailing_zeros(word))
        places[np.uint64(num)] = offset + place
        values[np.uint64(num)] = source[np.uint64(place)]
        num += 1
        word &= word - np.uint64(1)
    return end
