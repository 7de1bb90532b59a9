"""What the parts of two kernels take that none of their versions can leave out: decoding rANS and rotating.

    python benchmarks/bounds_vector.py

Each row is a loop that does one such part and nothing else, timed beside copying 25,557,032 f32 entries, by turns, on
one thread. Parts that wait for memory and parts that calculate may overlap: no kernel takes less than the longest
of its parts, and one that takes their sum overlaps nothing. `docs/bench.md` says what the kernels themselves take.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from thinwire.arrays import aligned_array, tensor_of
from thinwire.kernels.bitpack.bits import pack_block
from thinwire.kernels.entropy.rans_registers import PARTS, Code, enabled
from thinwire.kernels.entropy.rans_tables import lookup_of
from thinwire.kernels.jit.compiling import cgutils, intrinsic, kernel, types
from thinwire.kernels.jit.intrinsics import empty
from thinwire.kernels.jit.simd import LANES, address
from thinwire.kernels.random.philox import fill_words
from thinwire.kernels.transform.hadamard import hadamard_rotate
from thinwire.kernels.transform.hadamard_numba import SWEEP, TILE_LOG, sweep, transform_halls
from thinwire.kernels.transform.hadamard_simd import levels_up, squares_up

NUMEL = 25_557_032
ROOM_LOG, CACHED_LOG, LARGEST_LOG = 12, 21, 24


def _gather_rows(typing_context: Any, states: Any, lookup: Any, num_rows: Any, moves: Any) -> Any:
    """Rows of 32 look-ups by the 12 low bits of 32 states, each moved by what was found, of two blocks by turns.

    With ``moves``, a state moves as that of rANS does, ``f * (x >> 12) + x % 4096 - c``, but takes no words; otherwise
    what was found is added to it.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not enabled(context):
            return context.get_dummy_value()
        code = Code(context, builder)
        kept, table = (address(context, builder, signature.args[i], arguments[i], code.number(0)) for i in (0, 1))
        held = [register for block in (0, 1) for register in code.registers(code.at(kept, code.number(32 * block)))]

        def rows(moved: bool) -> None:
            with cgutils.for_range(builder, builder.lshr(arguments[2], code.number(1))):
                for register in held:
                    state = builder.load(register)
                    entry = code.words_of_table(table, code.bits(state, 0, 12))
                    if moved:
                        frequency = builder.add(code.bits(entry, 0, 12), code.everywhere(1))
                        # A word is taken where the state is short; its top bits here are others, which costs the same.
                        state = builder.mul(frequency, builder.or_(code.bits(state, 12, 20), code.everywhere(1 << 12)))
                        entry = code.bits(entry, 12, 12)
                    builder.store(builder.add(state, entry), register)

        with builder.if_else(arguments[3]) as (yes, no):
            with yes:
                rows(True)
            with no:
                rows(False)
        for block in (0, 1):
            code.put_back(held[PARTS * block : PARTS * (block + 1)], code.at(kept, code.number(32 * block)))
        return context.get_dummy_value()

    return types.void(states, lookup, types.int64, types.boolean), generate


gather_rows: Any = intrinsic(_gather_rows)


@kernel
def gathers(states: Any, lookup: Any, num_rows: int, moves: bool) -> None:
    """:func:`_gather_rows` as a kernel."""
    gather_rows(states, lookup, num_rows, moves)


@kernel
def packs(symbols: Any, packed: Any, times: int) -> None:
    """Four bits of each symbol, from the first cache."""
    for _ in range(times):
        pack_block(symbols, 4, packed)


@kernel
def philox(times: int, log: int, k0: Any, k1: Any) -> None:
    """The bits of the signs of so many tiles."""
    size = 1 << log
    pairs, words = empty(size // 64, np.uint64), empty(size // 32, np.uint32)
    for time_ in range(times):
        fill_words(k0, k1, time_ * (size // 128), pairs, words)


@kernel
def squares(room: Any, target: Any, bits: Any, times: int, scale: Any) -> None:
    """Signs and the levels of a square, six or seven, in the first cache."""
    for _ in range(times):
        squares_up(room, 0, target, 0, room.size, bits, 0, scale, target, 0)


@kernel
def three_levels(room: Any, times: int, low: int, scale: Any) -> None:
    """Three further levels, in the first cache. Of zeros: sums of anything else would overflow."""
    width = 1 << low
    for _ in range(times):
        for left in range(0, room.size, width << 3):
            levels_up(room, left, width, room, left, width, width // LANES, 3, scale)


@kernel
def tiles(source: Any, target: Any, times: int, log: int, k0: Any, k1: Any, scale: Any) -> None:
    """One tile again and again: it stays in the second cache."""
    for _ in range(times):
        transform_halls(source, target, 0, 1 << log, log, k0, k1, 0, scale, False)


@dataclass(frozen=True)
class Row:
    """A loop, the entries that it does, and what to say of it."""

    name: str
    run: Callable[[], Any]
    what: str
    numel: int = NUMEL


def decoding() -> list[Row]:
    """What decoding 4-bit codes of about two bits of entropy cannot leave out."""
    weights = np.exp(-0.5 * (np.arange(16) - 7.5) ** 2)
    table = np.maximum(1, np.floor(4096 * weights / weights.sum())).astype(np.int64)
    table[7] += 4096 - table.sum()
    lookup = lookup_of(np.pad(table, (0, 240)))
    states = np.random.default_rng(0).integers(1 << 16, 1 << 32, 64).astype(np.uint32)
    symbols, packed = np.zeros(2048, np.uint8), np.zeros(256, np.uint32)
    rows = NUMEL // 32
    return [
        Row("rANS: look-ups", lambda: gathers(states, lookup, rows, False), "32 table entries a row, one at a time"),
        Row(
            "rANS: look-ups, moves", lambda: gathers(states, lookup, rows, True), "and each state moved, no words taken"
        ),
        Row(
            "rANS: packing",
            lambda: packs(symbols, packed, NUMEL // 2048),
            "4 bits of each symbol, from the first cache",
        ),
    ]


def rotating(source: Any, target: Any) -> list[Row]:
    """What the rotation of one large block and some small ones cannot leave out."""
    one, k0, k1 = np.float32(1.0), np.uint32(1), np.uint32(2)
    room, other = (np.zeros(1 << ROOM_LOG, np.float32) for _ in range(2))
    bits = np.random.default_rng(1).integers(0, 256, (1 << ROOM_LOG) // 8).astype(np.uint8)
    tile, times = 1 << TILE_LOG, NUMEL >> TILE_LOG
    rooms, cached, most = NUMEL >> ROOM_LOG, 1 << CACHED_LOG, 1 << LARGEST_LOG
    near, far = target[:cached], target[:most]
    zeros, zeros_too = (np.zeros(tile, np.float32) for _ in range(2))

    def swept_near() -> None:
        for _ in range(most // cached):
            sweep(near, near, 0, cached, TILE_LOG, SWEEP, one, False)

    vector, out = tensor_of(source), tensor_of(target)
    return [
        Row("rotation", lambda: hadamard_rotate(vector, 1, out=out), "the kernel itself, to another vector"),
        Row("rotation in place", lambda: hadamard_rotate(out, 1, out=out), "the kernel itself"),
        Row("signs", lambda: philox(times, TILE_LOG, k0, k1), "Philox, a bit an entry"),
        Row(
            "squares", lambda: squares(room, other, bits, rooms, one), "signs and the first levels, in the first cache"
        ),
        Row(
            "three levels",
            lambda: three_levels(room, rooms, 9, one),
            "in the first cache; 24 levels are squares and six such",
        ),
        Row(
            "tiles",
            lambda: tiles(zeros, zeros_too, times, TILE_LOG, k0, k1, one),
            "the lowest 15 levels, in the second cache",
        ),
        Row("sweep, third cache", swept_near, "three levels of 8 MiB that lie there", most),
        Row(
            "sweep, memory",
            lambda: sweep(far, far, 0, most, CACHED_LOG, SWEEP, one, False),
            "three levels in place",
            most,
        ),
        Row("pass in place", lambda: out.mul_(1.0), "a vector read and written where it lies"),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    source, target, copied = (aligned_array(NUMEL, np.float32) for _ in range(3))
    tensor_of(source).normal_(generator=torch.Generator().manual_seed(0))
    target[:], copied[:] = 0, 0
    rows = [*decoding(), *rotating(source, target)]
    seconds: list[list[float]] = [[] for _ in rows]
    copies: list[float] = []
    for number in range(repeats + 1):
        for row, own in zip(rows, seconds, strict=True):
            start_s = time.perf_counter()
            tensor_of(copied).copy_(tensor_of(source))
            middle_s = time.perf_counter()
            row.run()
            end_s = time.perf_counter()
            # The first turn compiles.
            if number:
                copies.append(middle_s - start_s)
                own.append(end_s - middle_s)
    copy_s = statistics.median(copies)
    print(f"a copy: {1e3 * copy_s:.2f} ms\n\n| row | copies | ms | what the loop does |\n|---|---|---|---|")
    for row, own in zip(rows, seconds, strict=True):
        whole_s = statistics.median(own) * NUMEL / row.numel
        print(f"| {row.name} | {whole_s / copy_s:.2f} | {1e3 * whole_s:.2f} | {row.what} |")


if __name__ == "__main__":
    main()
