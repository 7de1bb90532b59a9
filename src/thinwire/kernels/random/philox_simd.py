"""Sixteen blocks of Philox at once, in LLVM's own vectors: the fewest instructions, which a plain loop does not get."""

from typing import Any, Final

from thinwire.kernels.jit.compiling import cgutils, intrinsic, types
from thinwire.kernels.jit.simd import address, constants, spread, store, vector

MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS: Final = (0x9E3779B9, 0xBB67AE85)
ROUNDS: Final = 7
_LANES = 16


def _philox_pairs(
    typing_context: Any, k0: Any, k1: Any, first: Any, stage: Any, pairs: Any, begin: Any, distance: Any, count: Any
) -> Any:
    """Blocks ``first + j`` for ``j < count``: words 1 and 0 to ``pairs[begin + j]``, 3 and 2 ``distance`` behind it.

    The former of each two is in the low half. ``stage`` is the highest word of the counter. Nothing is checked.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        i64 = ir.IntType(64)
        first, stage = arguments[2], arguments[3]
        begin, distance, count = arguments[5], arguments[6], arguments[7]
        keys = []
        for half in range(2):
            key = builder.zext(arguments[half], i64)
            steps = [ir.Constant(i64, KEY_STEPS[half] * turn) for turn in range(ROUNDS)]
            # Only 32 bits of a key count; those above are cut off here and never looked at elsewhere.
            keys.append([builder.and_(builder.add(key, step), ir.Constant(i64, 0xFFFFFFFF)) for step in steps])
        target = address(context, builder, signature.args[4], arguments[4], begin)

        def emit(start: Any, lanes: int) -> None:
            kind = vector(i64, lanes)

            def all_lanes(number: int) -> Any:
                return ir.Constant(kind, [number] * lanes)

            low, half = all_lanes(0xFFFFFFFF), all_lanes(32)
            block = builder.add(
                spread(builder, builder.add(first, start), lanes), ir.Constant(kind, list(range(lanes)))
            )
            # Words are the low halves of 64-bit numbers, as the vector unit's multiplication wants them; what is
            # above counts for nothing until the end.
            c0, c1, c2 = block, builder.lshr(block, half), all_lanes(0)
            c3 = spread(builder, stage, lanes)
            for turn in range(ROUNDS):
                a, b = (spread(builder, each[turn], lanes) for each in keys)
                p0 = builder.mul(builder.and_(c0, low), all_lanes(MULTIPLIERS[0]))
                p1 = builder.mul(builder.and_(c2, low), all_lanes(MULTIPLIERS[1]))
                c1, c3 = builder.xor(c1, a), builder.xor(c3, b)
                if turn == ROUNDS - 1:
                    # The high halves of the products are where they shall end.
                    lower, upper = builder.xor(p1, _raised(builder, c1)), builder.xor(p0, _raised(builder, c3))
                else:
                    c0, c2 = builder.xor(_lowered(builder, p1), c1), builder.xor(_lowered(builder, p0), c3)
                    c1, c3 = p1, p0
            store(builder, lower, builder.gep(target, [start]))
            store(builder, upper, builder.gep(target, [builder.add(start, distance)]))

        lanes = count.type(_LANES)
        groups = builder.udiv(count, lanes)
        with cgutils.for_range(builder, groups) as loop:
            emit(builder.mul(loop.index, lanes), _LANES)
        done = builder.mul(groups, lanes)
        with cgutils.for_range(builder, builder.sub(count, done)) as loop:
            emit(builder.add(done, loop.index), 1)
        return context.get_dummy_value()

    word, index = types.uint32, types.intp
    return types.void(word, word, types.int64, types.int64, pairs, index, index, index), generate


def _lowered(builder: Any, words: Any) -> Any:
    """The high halves as the low ones too: a shuffle leaves the unit that multiplies alone, a shift would not."""
    from llvmlite import ir

    halves = vector(ir.IntType(32), 2 * words.type.count)
    chosen = constants(ir.IntType(32), [half | 1 for half in range(halves.count)])
    given = builder.bitcast(words, halves)
    return builder.bitcast(builder.shuffle_vector(given, given, chosen), words.type)


def _raised(builder: Any, words: Any) -> Any:
    """The low halves as the high ones, over zeros; written as a shift it would be drawn into the multiplication."""
    from llvmlite import ir

    halves = vector(ir.IntType(32), 2 * words.type.count)
    order = [half if half % 2 == 0 else halves.count + half - 1 for half in range(halves.count)]
    chosen = constants(ir.IntType(32), order)
    zeros = constants(ir.IntType(32), [0] * halves.count)
    return builder.bitcast(builder.shuffle_vector(zeros, builder.bitcast(words, halves), chosen), words.type)


philox_pairs: Any = intrinsic(_philox_pairs)
