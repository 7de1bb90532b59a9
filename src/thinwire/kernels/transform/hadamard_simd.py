"""Steps of a Walsh-Hadamard transform, held in vector registers from load to store.

A level with distance ``h`` replaces every pair ``a = x[i], b = x[i + h]`` by ``a + b, a - b``. Several levels in one
step save passes over memory and change no rounding, because each sum has the same two operands.
"""

from typing import Any

from thinwire.kernels.jit.compiling import cgutils, intrinsic, types
from thinwire.kernels.jit.simd import LANES, address, constants, load, prefetch, spread, store, vector

_LARGEST_STEP = 3
"""Levels that one step does at most."""

_ROWS = 8
"""Vectors of a square: as many as sixteen registers hold, with room to work."""

_TOP = 0x80000000


def _features(context: Any) -> tuple[str, set[str]]:
    triple, _, features = context.codegen().magic_tuple()
    return triple, set(features.split(","))


def _lanes(context: Any) -> int:
    """Entries of a vector: those of a register, eight where the processor has not sixteen."""
    return LANES if "+avx512f" in _features(context)[1] else LANES // 2


def _has_fma(context: Any) -> bool:
    triple, features = _features(context)
    return "+fma" in features or triple.startswith(("aarch64", "arm64"))


def _square_log(typing_context: Any) -> Any:
    """Levels of a square, a constant."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, (_ROWS * _lanes(context)).bit_length() - 1)

    return types.intp(), generate


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


def _within(context: Any, builder: Any, rows: list[Any], descending: bool) -> list[Any]:
    """The levels inside each of some vectors: all vectors take one before any takes the next, so that none waits."""
    from llvmlite import ir

    word, lanes = ir.IntType(32), rows[0].type.count
    kind = ir.FunctionType(rows[0].type, [rows[0].type] * 3)
    distances = [1 << level for level in range(lanes.bit_length() - 1)]
    for distance in reversed(distances) if descending else distances:
        # Lane i is x[i ^ h] + x[i] below, x[i ^ h] - x[i] above: the sum with x[i] or its negation.
        order = constants(word, [lane ^ distance for lane in range(lanes)])
        upper = [bool(lane & distance) for lane in range(lanes)]
        partners = [builder.shuffle_vector(row, row, order) for row in rows]
        if _has_fma(context):
            # A product with 1 or -1 is exact, and the units that multiply have nothing else to do.
            ones = ir.Constant(rows[0].type, [-1.0 if each else 1.0 for each in upper])
            fma = builder.module.declare_intrinsic(f"llvm.fma.v{lanes}f32", (), kind)
            rows = [builder.call(fma, [row, ones, partner]) for row, partner in zip(rows, partners, strict=True)]
        else:
            signs = constants(word, [_TOP if each else 0 for each in upper])
            pairs = zip(rows, partners, strict=True)
            rows = [builder.fadd(partner, _flip(builder, row, signs)) for row, partner in pairs]
    return rows


def _joined(builder: Any, parts: list[Any]) -> Any:
    """Vectors side by side."""
    from llvmlite import ir

    while len(parts) > 1:
        both = constants(ir.IntType(32), list(range(2 * parts[0].type.count)))
        parts = [builder.shuffle_vector(*parts[first : first + 2], both) for first in range(0, len(parts), 2)]
    return parts[0]


def _flip(builder: Any, row: Any, signs: Any) -> Any:
    return builder.bitcast(builder.xor(builder.bitcast(row, signs.type), signs), row.type)


def _table_of_signs(builder: Any) -> Any:
    """The signs of eight entries, for every byte of bits: taking them from memory leaves the vector units free."""
    from llvmlite import ir

    kind = vector(ir.IntType(32), 8)
    rows = [constants(kind.element, [_TOP * (bits >> lane & 1) for lane in range(8)]) for bits in range(256)]
    table: Any = cgutils.global_constant(builder, "hadamard_signs", ir.Constant(ir.ArrayType(kind, 256), rows))
    table.align = 32
    return table


def _at(builder: Any, pointer: Any, index: Any, further: int) -> Any:
    return builder.gep(pointer, [builder.add(index, index.type(further))])


def _signs(context: Any, builder: Any, table: Any, octets: Any, first: Any) -> list[Any]:
    """The signs of the rows of a square, from byte ``first`` on."""
    from llvmlite import ir

    eights = []
    for number in range(_ROWS * _lanes(context) // 8):
        octet = builder.zext(builder.load(_at(builder, octets, first, number)), ir.IntType(64))
        eights.append(builder.load(builder.gep(table, [octet.type(0), octet]), align=32))
    parts = _lanes(context) // 8
    return [_joined(builder, eights[row : row + parts]) for row in range(0, len(eights), parts)]


def _loaded(context: Any, builder: Any, read: Any, first: Any) -> list[Any]:
    """The rows of a square."""
    from llvmlite import ir

    lanes = _lanes(context)
    return [
        load(builder, _at(builder, read, first, row * lanes), vector(ir.FloatType(), lanes)) for row in range(_ROWS)
    ]


def _squares(descending: bool) -> Any:
    def squares(
        typing_context: Any,
        source: Any,
        begin: Any,
        target: Any,
        end: Any,
        numel: Any,
        bits: Any,
        first: Any,
        scale: Any,
        needed: Any,
        where: Any,
    ) -> Any:
        """``numel`` entries, a multiple of 128: signs and the levels of a square; descending, both, then scale.

        As many of ``needed`` are asked for, from ``where`` on, that they lie in a cache when they are written.

        The sign of entry ``i`` is bit ``i % 8`` of uint8 ``bits[first + i // 8]``.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            size = _ROWS * _lanes(context)
            read = address(context, builder, source, arguments[0], arguments[1])
            write = address(context, builder, target, arguments[2], arguments[3])
            octets = address(context, builder, bits, arguments[5], arguments[6])
            soon = address(context, builder, needed, arguments[8], arguments[9])
            factor = spread(builder, arguments[7], _lanes(context))
            table = _table_of_signs(builder)
            with cgutils.for_range(builder, builder.udiv(arguments[4], arguments[4].type(size))) as loop:
                first_entry = builder.mul(loop.index, loop.index.type(size))
                signs = _signs(context, builder, table, octets, builder.udiv(first_entry, first_entry.type(8)))
                if not descending:
                    for line in range(size // LANES):
                        prefetch(context, builder, _at(builder, soon, first_entry, LANES * line))
                rows = _loaded(context, builder, read, first_entry)
                if descending:
                    rows = _within(context, builder, _across(builder, rows, True), True)
                    rows = [builder.fmul(row, factor) for row in rows]
                rows = [_flip(builder, row, sign) for row, sign in zip(rows, signs, strict=True)]
                if not descending:
                    rows = _across(builder, _within(context, builder, rows, False), False)
                for number, value in enumerate(rows):
                    store(builder, value, _at(builder, write, first_entry, number * _lanes(context)))
            return context.get_dummy_value()

        index = types.intp
        return types.void(source, index, target, index, index, bits, index, types.float32, needed, index), generate

    return intrinsic(squares)


def _levels(descending: bool, last: bool) -> Any:
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
        """``num_levels`` levels, 0 to 3, across rows of ``16 * groups`` entries that lie a stride apart.

        If this is the last step, scale.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            from llvmlite import ir

            read = address(context, builder, source, arguments[0], arguments[1])
            write = address(context, builder, target, arguments[3], arguments[4])
            lanes = _lanes(context)
            factor = spread(builder, arguments[8], lanes)

            def step(case: int) -> None:
                with cgutils.for_range(builder, arguments[6]) as loop:
                    for half in range(LANES // lanes):
                        column = builder.mul(loop.index, loop.index.type(LANES))
                        column = builder.add(column, column.type(half * lanes))

                        def place(pointer: Any, stride: Any, number: int, column: Any = column) -> Any:
                            return builder.gep(pointer, [builder.add(column, builder.mul(stride, stride.type(number)))])

                        kind = vector(ir.FloatType(), lanes)
                        rows = [load(builder, place(read, arguments[2], number), kind) for number in range(1 << case)]
                        for number, value in enumerate(_across(builder, rows, descending)):
                            scaled = builder.fmul(value, factor) if last else value
                            store(builder, scaled, place(write, arguments[5], number))

            after = builder.append_basic_block("after")
            switch = builder.switch(arguments[7], after)
            for case in range(0 if last else 1, _LARGEST_STEP + 1):
                block = builder.append_basic_block(f"levels{case}")
                switch.add_case(ir.Constant(arguments[7].type, case), block)
                with builder.goto_block(block):
                    step(case)
                    builder.branch(after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        index = types.intp
        kinds = (source, index, index, target, index, index, index, index, types.float32)
        return types.void(*kinds), generate

    return intrinsic(levels)


square_log: Any = intrinsic(_square_log)
squares_up: Any = _squares(descending=False)
squares_down: Any = _squares(descending=True)
levels_up: Any = _levels(descending=False, last=False)
levels_down: Any = _levels(descending=True, last=False)
last_levels_up: Any = _levels(descending=False, last=True)
last_levels_down: Any = _levels(descending=True, last=True)
