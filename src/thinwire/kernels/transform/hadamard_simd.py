"""Steps of a Walsh-Hadamard transform, sixteen entries at once, held in registers from load to store.

A level with distance ``h`` replaces every pair ``a = x[i], b = x[i + h]`` by ``a + b, a - b``. Several levels in one
step save passes over memory and change no rounding, because each sum has the same two operands.
"""

from typing import Any

from thinwire.kernels.jit.compiling import cgutils, intrinsic, types
from thinwire.kernels.jit.simd import LANES, address, constants, load, spread, store, vector

LARGEST_STEP = 4
"""Levels that one step does at most: sixteen rows fill the registers."""

SQUARE = LANES * LANES
"""Entries of the smallest transform that is done in registers as a whole."""

_TOP = 0x80000000


def _across(builder: Any, rows: list[Any], descending: bool) -> list[Any]:
    """All levels of a transform whose entries are whole vectors."""
    distances = [1 << level for level in range(len(rows).bit_length() - 1)]
    for distance in reversed(distances) if descending else distances:
        for low in range(len(rows)):
            if not low & distance:
                high = low + distance
                a, b = rows[low], rows[high]
                rows[low], rows[high] = builder.fadd(a, b), builder.fsub(a, b)
    return rows


def _within(builder: Any, row: Any, descending: bool) -> Any:
    """The four levels inside a vector."""
    from llvmlite import ir

    word = ir.IntType(32)
    for distance in (8, 4, 2, 1) if descending else (1, 2, 4, 8):
        # Lane i is x[i ^ h] + x[i] below, x[i ^ h] - x[i] above: the sum with x[i] or its negation.
        partners = constants(word, [lane ^ distance for lane in range(LANES)])
        upper = constants(word, [_TOP if lane & distance else 0 for lane in range(LANES)])
        row = builder.fadd(builder.shuffle_vector(row, row, partners), _flip(builder, row, upper))
    return row


def _flip(builder: Any, row: Any, signs: Any) -> Any:
    return builder.bitcast(builder.xor(builder.bitcast(row, signs.type), signs), row.type)


def _square(descending: bool) -> Any:
    def square(typing_context: Any, source: Any, target: Any, position: Any, words: Any, first: Any, scale: Any) -> Any:
        """The 256 entries at ``position``: signs, eight levels, scale; descending, the other way round.

        The sign of entry ``i`` is bit ``i % 32`` of uint32 ``words[first + i // 32]``.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            from llvmlite import ir

            word, row = ir.IntType(32), vector(ir.FloatType())
            begin = address(context, builder, source, arguments[0], arguments[2])
            end = address(context, builder, target, arguments[1], arguments[2])
            bits = address(context, builder, words, arguments[3], arguments[4])
            factor = spread(builder, arguments[5])

            def step(pointer: Any, count: int) -> Any:
                return builder.gep(pointer, [ir.Constant(ir.IntType(64), count)])

            def signed(value: Any, number: int) -> Any:
                numbers = spread(builder, builder.load(step(bits, number // 2)))
                shifts = constants(word, [31 - lane - LANES * (number % 2) for lane in range(LANES)])
                return _flip(
                    builder, value, builder.and_(builder.shl(numbers, shifts), constants(word, [_TOP] * LANES))
                )

            rows = [load(builder, step(begin, LANES * number), row) for number in range(LANES)]
            if descending:
                rows = [_within(builder, value, True) for value in _across(builder, rows, True)]
            else:
                rows = [_within(builder, signed(value, number), False) for number, value in enumerate(rows)]
                rows = _across(builder, rows, False)
            for number, value in enumerate(rows):
                scaled = builder.fmul(value, factor)
                store(builder, signed(scaled, number) if descending else scaled, step(end, LANES * number))
            return context.get_dummy_value()

        return types.void(source, target, types.intp, words, types.intp, types.float32), generate

    return intrinsic(square)


def _levels(descending: bool) -> Any:
    def levels(
        typing_context: Any,
        source: Any,
        begin: Any,
        source_stride: Any,
        target: Any,
        end: Any,
        target_stride: Any,
        groups: Any,
        num_levels: Any,
        scale: Any,
    ) -> Any:
        """``num_levels`` levels, 1 to 4, across rows of ``16 * groups`` entries that lie a stride apart, then scale."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            from llvmlite import ir

            read = address(context, builder, source, arguments[0], arguments[1])
            write = address(context, builder, target, arguments[3], arguments[4])
            factor = spread(builder, arguments[8])
            after = builder.append_basic_block("after")
            switch = builder.switch(arguments[7], after)
            for case in range(1, LARGEST_STEP + 1):
                block = builder.append_basic_block(f"levels{case}")
                switch.add_case(ir.Constant(arguments[7].type, case), block)
                with builder.goto_block(block):
                    with cgutils.for_range(builder, arguments[6]) as loop:
                        column = builder.mul(loop.index, loop.index.type(LANES))

                        def place(pointer: Any, stride: Any, number: int, column: Any = column) -> Any:
                            offset = builder.mul(stride, stride.type(number))
                            return builder.gep(pointer, [builder.add(column, offset)])

                        rows = [
                            load(builder, place(read, arguments[2], number), vector(ir.FloatType()))
                            for number in range(1 << case)
                        ]
                        for number, value in enumerate(_across(builder, rows, descending)):
                            store(builder, builder.fmul(value, factor), place(write, arguments[5], number))
                    builder.branch(after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        index = types.intp
        kinds = (source, index, index, target, index, index, index, index, types.float32)
        return types.void(*kinds), generate

    return intrinsic(levels)


square_up: Any = _square(descending=False)
square_down: Any = _square(descending=True)
levels_up: Any = _levels(descending=False)
levels_down: Any = _levels(descending=True)
