"""Where the 1s of a unary stream lie, the up to eight of a byte at once."""

from typing import Any

from thinwire.kernels.jit.compiling import cgutils, intrinsic, types
from thinwire.kernels.jit.simd import address, constants, load, spread, store, vector

_NUM_BYTES = 8


def _take_ones(typing_context: Any, word: Any, first: Any, places: Any, num: Any) -> Any:
    """Append the places ``first + bit`` of a word's set bits to the ``num`` in ``places``; how many there are then.

    Up to eight behind these are written over. A byte's places come from a table: neither how many bits are set nor the
    next of them is waited for.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        byte, long = ir.IntType(8), ir.IntType(64)
        word, first, places, num = arguments
        bits_of = [[bit for bit in range(8) if value >> bit & 1] for value in range(256)]
        rows = [place for bits in bits_of for place in (*bits, *[0] * (8 - len(bits)))]
        table = cgutils.global_constant(builder, "places_of_ones", constants(byte, rows))
        start = builder.bitcast(table, byte.as_pointer())
        count = builder.module.declare_intrinsic("llvm.ctpop", [long])
        for number in range(_NUM_BYTES):
            value = builder.and_(builder.lshr(word, long(8 * number)), long(255))
            row = load(builder, builder.gep(start, [builder.shl(value, long(3))]), vector(byte, 8))
            begin = spread(builder, builder.add(first, long(8 * number)), 8)
            found = builder.add(builder.zext(row, vector(long, 8)), begin)
            store(builder, found, address(context, builder, signature.args[2], places, num))
            num = builder.add(num, builder.call(count, [value]))
        return num

    return types.intp(types.uint64, types.intp, places, types.intp), generate


take_ones: Any = intrinsic(_take_ones)
