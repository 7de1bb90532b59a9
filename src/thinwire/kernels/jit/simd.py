"""Packed codes, sixteen entries at once: what a plain loop cannot say in a way that the compiler vectorises.

Each function is a loop written in LLVM's own vectors, which become the instructions of any processor. Nothing is
checked: what is read and written must lie inside the arrays.
"""

from collections.abc import Callable
from typing import Any

from thinwire.kernels.jit.compiling import cgutils, intrinsic, types

LANES = 16
"""Entries of one group. Sixteen codes of any width are whole bytes."""

LARGEST_WIDTH = 8
"""Bits of the widest codes that these loops read."""

_AHEAD = 1024
"""Entries of a sum that memory is asked for before they are needed."""

_ZEN, _ASKED_ZEN = "znver", ("znver3",)
"""AMD's processors, as LLVM names them, and those that gain by being asked for memory."""


def address(context: Any, builder: Any, kind: Any, array: Any, position: Any) -> Any:
    """Pointer to an entry of an array that an intrinsic was given; ``kind`` is the array's Numba type."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [position])


def vector(element: Any, count: int = LANES) -> Any:
    """The type of ``count`` elements side by side."""
    from llvmlite import ir

    return ir.VectorType(element, count)


def constants(element: Any, numbers: list[int]) -> Any:
    """A vector of the given numbers."""
    from llvmlite import ir

    return ir.Constant(vector(element, len(numbers)), [ir.Constant(element, number) for number in numbers])


def spread(builder: Any, scalar: Any, count: int = LANES) -> Any:
    """A vector with the scalar in every lane."""
    from llvmlite import ir

    nothing = ir.Constant(vector(scalar.type, count), ir.Undefined)
    one = builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, nothing, constants(ir.IntType(32), [0] * count))


def load(builder: Any, pointer: Any, kind: Any) -> Any:
    """A vector from memory of any alignment."""
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=1)


def store(builder: Any, value: Any, pointer: Any) -> None:
    """A vector to memory of any alignment."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=1)


def variable(builder: Any, value: Any) -> Any:
    """Memory for a value that a loop changes; it becomes a register."""
    with builder.goto_entry_block():
        place = builder.alloca(value.type)
    builder.store(value, place)
    return place


def is_zen(context: Any) -> bool:
    """Whether code is made for a processor of AMD's."""
    return _processor(context).startswith(_ZEN)


def _processor(context: Any) -> str:
    _, name, _ = context.codegen().magic_tuple()
    return str(name)


def prefetch(context: Any, builder: Any, pointer: Any) -> None:
    """Prefetch the memory there, which may lie outside of every array: nothing waits for it, nothing fails.

    AMD's Zen 4 is asked nothing: it reads ahead by itself, and such requests keep it from that. Error feedback and
    signs of 25 M entries take it 9.3 ms without them and 14 to 20 with them, at any distance; an Intel Xeon wins by
    them. Zen 3 takes QSGD and adding levels in five sixths of the time with them.
    """
    from llvmlite import ir

    if is_zen(context) and _processor(context) not in _ASKED_ZEN:
        return
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
    # To be read, kept in all caches, data.
    builder.call(function, [builder.bitcast(pointer, byte), word(0), word(3), word(1)])


def _read_codes(builder: Any, pointer: Any, width: int) -> Any:
    """Sixteen codes of ``width`` bits as int32, from the byte on at which the first begins."""
    from llvmlite import ir

    byte, word = ir.IntType(8), ir.IntType(32)
    if width == 4:
        # Every lane gets the four bytes that hold its code, which a load does by itself; to shuffle bytes takes longer.
        halves = builder.bitcast(pointer, word.as_pointer())
        loaded = (builder.load(builder.gep(halves, [word(place)]), align=1) for place in (0, 1))
        words = builder.shuffle_vector(*(spread(builder, each, 8) for each in loaded), constants(word, [*range(LANES)]))
        shifted = builder.lshr(words, constants(word, [4 * (lane % 8) for lane in range(LANES)]))
        return builder.and_(shifted, constants(word, [15] * LANES))
    # A code lies in at most two bytes. Both are copied to its lane and shifted down.
    last = 2 * width - 1
    chosen = [min(lane * width // 8 + part, last) for lane in range(LANES) for part in range(2)]
    data = load(builder, pointer, vector(byte, 2 * width))
    pairs = builder.shuffle_vector(data, ir.Constant(data.type, ir.Undefined), constants(word, chosen))
    windows = builder.zext(builder.bitcast(pairs, vector(ir.IntType(16))), vector(word))
    shifted = builder.lshr(windows, constants(word, [lane * width % 8 for lane in range(LANES)]))
    return builder.and_(shifted, constants(word, [(1 << width) - 1] * LANES))


def _for_every_width(builder: Any, width: Any, body: Callable[[int], None]) -> None:
    """Emit ``body`` for each width from 1 to 8, and the choice among them at run time."""
    from llvmlite import ir

    after = builder.append_basic_block("after")
    switch = builder.switch(width, after)
    for case in range(1, LARGEST_WIDTH + 1):
        block = builder.append_basic_block(f"width{case}")
        switch.add_case(ir.Constant(width.type, case), block)
        with builder.goto_block(block):
            body(case)
            builder.branch(after)
    builder.position_at_end(after)


def _put(context: Any, builder: Any, kept: bool, values: Any, pointer: Any) -> None:
    from llvmlite import ir

    if kept:
        # Of what is only written nothing has to come.
        prefetch(context, builder, builder.gep(pointer, [ir.Constant(ir.IntType(64), _AHEAD)]))
    sums = builder.fadd(load(builder, pointer, values.type), values) if kept else values
    store(builder, sums, pointer)


def _unpack_groups(
    typing_context: Any, packed: Any, byte: Any, width: Any, codes: Any, position: Any, groups: Any
) -> Any:
    """``codes[position + j]`` becomes code ``j`` of those that begin at ``byte``, ``16 * groups``; int32 or uint8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = address(context, builder, packed, arguments[0], arguments[1])
        target = address(context, builder, codes, arguments[3], arguments[4])

        def body(case: int) -> None:
            with cgutils.for_range(builder, arguments[5]) as loop:
                group = builder.gep(source, [builder.mul(loop.index, loop.index.type(2 * case))])
                read = _read_codes(builder, group, case)
                if target.type.pointee.width < read.type.element.width:
                    read = builder.trunc(read, vector(target.type.pointee))
                store(builder, read, builder.gep(target, [builder.mul(loop.index, loop.index.type(LANES))]))

        _for_every_width(builder, arguments[2], body)
        return context.get_dummy_value()

    return types.void(packed, types.intp, types.intp, codes, types.intp, types.intp), generate


def _add_level_groups(
    typing_context: Any,
    packed: Any,
    byte: Any,
    width: Any,
    num_levels: Any,
    unit: Any,
    factor: Any,
    kept: Any,
    out: Any,
    position: Any,
    groups: Any,
) -> Any:
    """``unit * (code - num_levels) * factor`` for ``16 * groups`` codes, added to ``out`` if ``kept``, else written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        source = address(context, builder, packed, arguments[0], arguments[1])
        target = address(context, builder, out, arguments[7], arguments[8])
        shift, unit, factor = (spread(builder, argument) for argument in arguments[3:6])

        def body(case: int) -> None:
            def run(adds: bool) -> None:
                with cgutils.for_range(builder, arguments[9]) as loop:
                    group = builder.gep(source, [builder.mul(loop.index, loop.index.type(2 * case))])
                    levels = builder.sub(_read_codes(builder, group, case), shift)
                    product = builder.fmul(unit, builder.sitofp(levels, vector(ir.FloatType())))
                    place = builder.gep(target, [builder.mul(loop.index, loop.index.type(LANES))])
                    _put(context, builder, adds, builder.fmul(product, factor), place)

            with builder.if_else(arguments[6]) as (adding, writing):
                with adding:
                    run(True)
                with writing:
                    run(False)

        _for_every_width(builder, arguments[2], body)
        return context.get_dummy_value()

    index, real = types.intp, types.float32
    kinds = (packed, index, index, types.int32, real, real, types.boolean, out, index, index)
    return types.void(*kinds), generate


def _add_sign_groups(
    typing_context: Any, packed: Any, byte: Any, value: Any, kept: Any, out: Any, position: Any, groups: Any
) -> Any:
    """``-value`` for a set bit, else ``value``, ``16 * groups`` times: added to ``out`` if ``kept``, else written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        source = address(context, builder, packed, arguments[0], arguments[1])
        target = address(context, builder, out, arguments[4], arguments[5])
        word = vector(ir.IntType(32))
        magnitude = builder.bitcast(spread(builder, arguments[2]), word)

        def run(adds: bool) -> None:
            with cgutils.for_range(builder, arguments[6]) as loop:
                group = builder.gep(source, [builder.mul(loop.index, loop.index.type(2))])
                top = builder.shl(_read_codes(builder, group, 1), constants(ir.IntType(32), [31] * LANES))
                values = builder.bitcast(builder.xor(magnitude, top), vector(ir.FloatType()))
                place = builder.gep(target, [builder.mul(loop.index, loop.index.type(LANES))])
                _put(context, builder, adds, values, place)

        with builder.if_else(arguments[3]) as (adding, writing):
            with adding:
                run(True)
            with writing:
                run(False)
        return context.get_dummy_value()

    index = types.intp
    return types.void(packed, index, types.float32, types.boolean, out, index, index), generate


unpack_groups: Any = intrinsic(_unpack_groups)
add_level_groups: Any = intrinsic(_add_level_groups)
add_sign_groups: Any = intrinsic(_add_sign_groups)
