"""Throw damaged and made-up messages at ``decode``: it returns a payload or raises WireError, in bounded memory.

    python benchmarks/fuzz_decode.py --messages 1000000
    python benchmarks/fuzz_decode.py --coverage CORPUS_FOLDER -max_total_time=600

A message is addressed by the seed and its number, so a run can go on from any ``--first``, and what failed can be had
again. Checksums are right in all but a few, so that the damage gets past the frame. The second form is guided by
coverage and needs the package ``atheris``; what follows the folder goes to libFuzzer.
"""

import argparse
import collections
import faulthandler
import functools
import importlib
import random
import signal
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

if TYPE_CHECKING:
    from thinwire.payloads import Payload

Result = TypeVar("Result")

MEMORY_FACTOR = 1024
MEMORY_FREE = 2**20
"""``decode`` may take so many bytes for each byte of the message, and so many more; so may what makes its vector, for
each entry too."""

SHORT = 4096
"""Of vectors up to this length the entries are computed too."""

CHUNK = 1000
LONGEST_S = 60
"""A chunk of messages that takes so many seconds of processor time hangs."""

_FRAME = bytes.fromhex("745701")
_INTERESTING = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 40, 41, 63, 64, 100, 127, 128, 129, 255, 256, 4096, 8192, 8193)
_HUGE = (2**31, 2**32 - 1, 2**40, 2**47, 2**48, 2**48 + 1, 2**62, 2**63 - 1, 2**63, 2**70)


class Failure(Exception):
    """A message that broke a law of ``decode``."""


class Generator:
    """Makes bodies of messages out of valid ones, by mutation and by the grammar of ``FORMAT.md`` with lies in it."""

    def __init__(self, seed: int, chunk: int) -> None:
        self.random = random.Random(f"{seed} {chunk}")
        self.corpus = valid_bodies(seed)

    def body(self) -> bytes:
        """The next one."""
        kind = self.random.random()
        if kind < 0.5:
            return self.mutated(self.corpus[self.below(len(self.corpus))])
        if kind < 0.55:
            made = self.costly()
            return self.mutated(made) if self.below(3) == 0 else made
        if kind < 0.9:
            made = self.made(1)
            return self.mutated(made) if self.below(3) == 0 else made
        length = self.below(60)
        return bytes([1 + self.below(15)]) + self.random.randbytes(length)

    def costly(self) -> bytes:
        """A few bytes that stand for much work or memory: a constant, transformed, added up and cut again and again."""
        numel = (4, 9, 300, 4096, 65536, 10**6, 2**24)[self.below(7)]
        body = b"\x0b" + varint(numel) + b"\0" + self.random.randbytes(4)
        for _ in range(1 + self.below(8)):
            kind = (8, 9, 10, 12, 14)[self.below(5)]
            if kind == 8:
                body = bytes([8]) + self.key() + bytes([1 + self.below(2), 0]) + body
            elif kind == 9:
                body = bytes([9]) + varint((2, 64, 255, 512, 4095, 4096)[self.below(6)]) + body
            elif kind == 10:
                # Of every segment of few entries, all.
                length = 1 + self.below(3)
                cut = b"\1" + varint(length) if length < numel else b"\0"
                body = bytes([10]) + varint(numel) + cut + self.key() + body + cut
            else:
                count = min((2, 32, 64)[self.below(3)], max(1, 3000 // len(body)))
                body = bytes([kind]) + varint(count) + body * count
                numel *= count if kind == 14 else 1
        return body

    def below(self, bound: int) -> int:
        """A number from 0 to ``bound - 1``."""
        return int(self.random.random() * bound)

    def mutated(self, body: bytes) -> bytes:
        """One to four changes: bits, bytes, numbers, cuts, repetitions, parts of other messages."""
        changed = bytearray(body)
        for _ in range(1 + self.below(4)):
            place = self.below(len(changed) + 1)
            end = min(len(changed), place + 1 + self.below(8))
            what = self.below(7)
            if what == 0 and place < len(changed):
                changed[place] ^= 1 << self.below(8)
            elif what == 1 and place < len(changed):
                changed[place] = self.below(256)
            elif what == 2:
                changed[place:end] = varint(self.number())
            elif what == 3:
                del changed[place:end]
            elif what == 4:
                changed[place:place] = changed[place:end]
            elif what == 5:
                other = self.corpus[self.below(len(self.corpus))]
                changed[place:] = other[self.below(len(other)) :]
            else:
                changed[place:place] = self.random.randbytes(1 + self.below(8))
        return bytes(changed)

    def number(self) -> int:
        """One that is small, at a border, or far too large."""
        kind = self.below(8)
        if kind == 0:
            return _HUGE[self.below(len(_HUGE))]
        return _INTERESTING[self.below(len(_INTERESTING))] if kind < 5 else self.below(300)

    def made(self, depth: int, numel: int | None = None) -> bytes:
        """A body as the grammar says, whose fields mostly agree."""
        numel = self.number() if numel is None or self.below(20) == 0 else numel
        kind = 1 + self.below(14)
        if kind in (2, 8, 9, 10, 12, 14):
            return bytes([kind]) + self.nested(kind, depth, numel)
        if kind == 1:
            dtype = self.below(4) if self.below(10) == 0 else self.below(3)
            return bytes([1, dtype]) + varint(numel) + self.some(numel * (4 if dtype == 0 else 2))
        if kind == 13:
            columns, rank = (
                max(1, self.number() if self.below(4) == 0 else self.below(min(numel, 99) + 1)),
                self.below(4),
            )
            factors = self.some(4 * rank * -(-numel // columns)) + self.some(4 * rank * columns)
            return bytes([13]) + varint(numel) + varint(columns) + varint(rank) + factors
        cut, segments = self.cut(numel)
        head = bytes([kind]) + varint(numel) + cut
        if kind == 4:
            return head + self.some(4 * segments) + self.some((numel + 7) // 8)
        if kind == 11:
            return head + self.some(4 * segments)
        if kind == 5:
            num_codes = (1, 2, 3, 4, 16, 255, 256, 257, 2**16, 2**16 + 1, 0)[self.below(11)]
            return head + varint(num_codes) + self.some(8 * segments) + self.codes(numel, num_codes)
        if kind == 6:
            table, num_codes = self.table()
            return head + table + self.some(4 * segments) + self.codes(numel, num_codes)
        if kind == 7:
            num_levels = (1, 1, 2, 7, 127, 128, 0)[self.below(7)]
            codes = self.some((numel * (2 * num_levels).bit_length() + 7) // 8)
            return head + varint(num_levels) + self.some(4 * segments) + codes
        num_levels = (1, 1, 3, 7, 127, 200, 2**20, 2**30 - 1, 2**30, 0)[self.below(10)]
        return head + varint(num_levels) + self.some(4 * segments) + self.codes(numel, 2 * num_levels + 1)

    def nested(self, kind: int, depth: int, numel: int) -> bytes:
        """What follows the kind of a body with others inside."""
        if kind == 8:
            block = (0, 1, 8, 2**48, 3, self.number())[self.below(6)]
            return self.key() + bytes([1 + self.below(2 + self.below(2))]) + varint(block) + self.inside(depth, numel)
        if kind == 9:
            return varint((1, 2, 64, 4096, self.number())[self.below(5)]) + self.inside(depth, numel)
        if kind in (12, 14):
            count = self.below(4) if self.below(8) else self.number()
            shares = [numel if kind == 12 else numel // max(1, count)] * min(count, 4)
            return varint(count) + b"".join(self.inside(depth, share) for share in shares)
        count = min(numel, self.number())
        if kind == 10:
            length = max(1, self.number())
            if self.below(2):
                # As many segments of values as of the vector.
                kept = max(1, min(length, self.below(5)))
                few = kept * (numel // length)
                inner = self.inside(depth, few)
                return (
                    varint(numel // length * length)
                    + b"\1"
                    + varint(length)
                    + self.key()
                    + inner
                    + b"\1"
                    + varint(kept)
                )
            return varint(numel) + b"\0" + self.key() + self.inside(depth, count) + b"\0"
        tag = self.below(6)
        code = bytes([tag]) + (bytes([self.below(42)]) if tag == 1 else b"")
        return varint(numel) + self.inside(depth, count) + code + self.some(self.below(2 * min(count, 500) + 3))

    def inside(self, depth: int, numel: int) -> bytes:
        """A body inside another; too deep only now and then."""
        return self.made(depth + 1, numel) if depth < 5 + 5 * (self.below(9) == 0) else b"\1\1" + varint(0)

    def key(self) -> bytes:
        return self.random.randbytes(8)

    def table(self) -> tuple[bytes, int]:
        """A codebook's table, mostly ascending, and how many numbers it has."""
        name = self.below(10)
        if name:
            return bytes([name]), 1 << name
        count = (2, 3, 256, 257, 1)[self.below(5)]
        numbers = np.sort(np.frombuffer(self.random.randbytes(2 * count), np.int16)).astype(np.float32)
        return b"\0" + varint(count) + (numbers if self.below(4) else numbers[::-1]).tobytes(), count

    def codes(self, numel: int, num_codes: int) -> bytes:
        """Codes of a kind that can be entropy-coded, after the byte that says so."""
        width = max(1, (num_codes - 1).bit_length())
        code = (0, 2, 1, 3)[self.below(4)]
        if code == 2 and self.below(2):
            return bytes([2, 1]) + self.frequencies(num_codes) + self.some(self.below(600))
        form = bytes([code, self.below(3)]) if code == 2 else bytes([code])
        return form + self.some((numel * width + 7) // 8)

    def frequencies(self, num_codes: int) -> bytes:
        """A table of rANS frequencies, mostly with the right sum."""
        largest = max(0, num_codes - 1)
        num = (largest >> max(0, largest.bit_length() - 8)) + 1
        cuts = sorted(self.below(4097) for _ in range(num - 1))
        table = [after - before for before, after in zip([0, *cuts], [*cuts, 4096], strict=True)]
        table[self.below(num)] += self.below(8) == 0
        return b"".join(map(varint, table))

    def cut(self, numel: int) -> tuple[bytes, int]:
        """Segments of a vector, and how many they are."""
        kind = self.below(4)
        if kind == 0:
            return bytes([0]), min(numel, 1)
        if kind == 1:
            length = self.number() if self.below(8) == 0 else self.below(min(numel, 300))
            length = max(1, length)
            return bytes([1]) + varint(length), -(-numel // length)
        borders = sorted(self.below(min(numel, 2**40) + 1) for _ in range(self.below(100)))
        sizes = [b - a for a, b in zip([0, *borders], [*borders, numel], strict=True)]
        return bytes([kind]) + varint(len(sizes)) + b"".join(map(varint, sizes)), len(sizes)

    def some(self, num_bytes: int) -> bytes:
        """About so many bytes, never many; sometimes all zero or all one."""
        num_bytes = min(num_bytes, 700)
        kind = self.below(4)
        return bytes(num_bytes) if kind == 0 else b"\xff" * num_bytes if kind == 1 else self.random.randbytes(num_bytes)


def varint(number: int) -> bytes:
    """Unsigned LEB128 of any number; too large ones are what a decoder must refuse."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


@functools.cache
def valid_bodies(seed: int) -> list[bytes]:
    """Bodies of messages of every kind and code."""
    from thinwire.kernels.bitpack.bits import pack
    from thinwire.kernels.quantize.lloyd_max import gaussian_table
    from thinwire.layout import Segments
    from thinwire.payloads import (
        DCT,
        Codebook,
        Concat,
        Constant,
        Dense,
        Grid,
        Levels,
        LowRank,
        Payload,
        PowersOfTwo,
        Rotated,
        SeededSparse,
        Signs,
        Sparse,
        Sum,
    )
    from thinwire.wire import encode

    generator = np.random.default_rng(seed)
    payloads: list[Payload] = []
    steps = torch.arange(16.0)
    for count in (0, 1, 5, 64, 300):
        sizes = [count // 2, 0, count - count // 2]
        segments = [Segments.whole(count), Segments.uniform(count, 7), Segments.of_sizes(sizes)]
        scales = [torch.rand(cut.count) for cut in segments]
        dtypes = (torch.float32, torch.bfloat16, torch.float16)
        values: list[Payload] = [Dense(torch.randn(count).to(dtype)) for dtype in dtypes]
        values += [
            Signs(pack(torch.from_numpy(generator.integers(0, 2, count)), 1), scale, cut)
            for scale, cut in zip(scales, segments, strict=True)
        ]
        for num_levels, coding in (
            (1, "packed"),
            (7, "elias"),
            (1, "entropy"),
            (127, "entropy"),
            (2**30 - 1, "packed"),
        ):
            codes = pack(
                torch.from_numpy(generator.integers(0, 2 * num_levels + 1, count)), (2 * num_levels).bit_length()
            )
            values += [Levels(codes, scales[1], num_levels, segments[1], coding)]  # type: ignore[arg-type]
        for num_codes, coding in ((1, "packed"), (3, "entropy"), (16, "packed"), (2**16, "entropy")):
            codes = pack(
                torch.from_numpy(generator.integers(0, num_codes, count)), max(1, (num_codes - 1).bit_length())
            )
            values += [Grid(codes, num_codes, scales[2], scales[2], segments[2], coding)]  # type: ignore[arg-type]
            if num_codes == 16:
                values += [Codebook(codes, table, scales[1], segments[1]) for table in (gaussian_table(4), steps)]
        values += [Constant(scale, cut) for scale, cut in zip(scales, segments, strict=True)]
        if count:
            columns = min(5, count)
            values += [LowRank(torch.rand(-(-count // columns), 2), torch.rand(columns, 2), count)]
        for num_levels in (1, 7, 127):
            codes = pack(
                torch.from_numpy(generator.integers(0, 2 * num_levels + 1, count)), (2 * num_levels).bit_length()
            )
            values += [PowersOfTwo(codes, num_levels, scales[0], segments[0])]
        payloads += values
        for value in values[::4]:
            payloads += [Rotated(value, 5), Rotated(value, 2**64 - 1, 2, 8), DCT(value, 3), Concat((value, value))]
            payloads += [Sum((value, Rotated(Sum((value, values[0])), 1)))]
            kept = Segments.of_sizes([0, count])
            payloads += [SeededSparse(value, kept, 3, Segments.of_sizes([9, count + 5]))]
            payloads += [SeededSparse(value, Segments.uniform(count, 2), 3, Segments.uniform(5 * count, 10))]
        for spread in (1, 3, 40, 2**30):
            gaps = generator.integers(0, 2 * spread - 1, count) * (generator.random(count) < 0.5)
            indices = torch.from_numpy(np.cumsum(gaps + 1) - 1)
            numel = int(indices[-1]) + 1 + spread if count else spread
            payloads += [Sparse(numel, indices, value) for value in values[::3]]
            inner = Sparse(count, torch.arange(count), values[0])
            payloads += [Sparse(numel, indices, inner)]
    skewed = torch.from_numpy((generator.random(5000) < 0.02).astype(np.int64) + 1)
    payloads += [Levels(pack(skewed, 2), torch.ones(1), 1, Segments.whole(5000), "entropy")]
    return [encode(payload)[3:-4].numpy().tobytes() for payload in payloads]


def message_of(body: bytes) -> torch.Tensor:
    """A message with the right frame around a body."""
    from thinwire.kernels.crc32c import crc32c_array

    checked = np.frombuffer(_FRAME + body, np.uint8)
    return torch.from_numpy(np.append(checked, np.frombuffer(crc32c_array(checked).to_bytes(4, "little"), np.uint8)))


def check(message: torch.Tensor, max_numel: int | None) -> str:
    """``accepted``, or why not.

    Raises:
        Failure: another exception than WireError, more memory than allowed, or a payload that does not survive
            another round.
    """
    from thinwire.errors import WireError
    from thinwire.wire import decode, encode, kinds_in

    def read() -> "tuple[Payload | None, str]":
        try:
            return decode(message, max_numel=max_numel), "accepted"
        except WireError as error:
            return None, " ".join(word for word in str(error).split() if not word[:1].isdigit())[:60]
        except BaseException as error:
            raise Failure(f"{type(error).__name__}: {error}") from error

    payload, reason = bounded(read, message.numel())
    if payload is not None:
        again = encode(payload)
        kinds = kinds_in(payload)
        if not torch.equal(encode(decode(again, kinds=kinds)), again):
            raise Failure("what was decoded changes when it is encoded and decoded again")
        if payload.numel <= SHORT:
            bounded(payload.to_dense, message.numel() + payload.numel)
        try:
            decode(message, kinds=kinds - {min(kinds)})
        except WireError:
            return reason
        raise Failure(f"a payload of kind {min(kinds)} was accepted where it was not expected")
    return reason


def bounded(work: Callable[[], Result], size: int) -> Result:
    """What it returns.

    Raises:
        Failure: it took more memory than is allowed for so many bytes and entries.
    """
    # A kernel that is used for the first time is compiled or loaded; only then is there a second attempt.
    for _ in range(2):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        result = work()
        taken = tracemalloc.get_traced_memory()[1] - before
        if taken <= MEMORY_FACTOR * size + MEMORY_FREE:
            return result
    raise Failure(f"{taken} bytes of memory for {size} bytes and entries")


def messages(seed: int, first: int, number: int) -> Iterator[tuple[int, torch.Tensor, int | None]]:
    """Number, message and ``max_numel`` of each."""
    for chunk in range(first // CHUNK, -(-(first + number) // CHUNK)):
        generator = Generator(seed, chunk)
        for place in range(chunk * CHUNK, (chunk + 1) * CHUNK):
            message = message_of(generator.body())
            if generator.below(50) == 0:
                message[generator.below(message.numel())] ^= 1 << generator.below(8)
            limit = (None, 10**6, 1000)[generator.below(3)]
            if first <= place < first + number:
                yield place, message, limit


def fuzz(seed: int, first: int, number: int, report: bool = False) -> collections.Counter[str]:
    """Check so many messages, and count what became of them.

    Raises:
        Failure: with the message in hex and how to get it again.
    """
    outcomes: collections.Counter[str] = collections.Counter()
    for _, message, limit in messages(seed, 0, 200):
        check(message, limit)  # compiles what is not compiled yet; that memory is not decode's
    began = time.perf_counter()
    # In compiled code too, the signal says where the time went, and then ends the process.
    faulthandler.register(signal.SIGPROF, chain=True)
    tracemalloc.start()
    try:
        for done, (place, message, limit) in enumerate(messages(seed, first, number), 1):
            if done % CHUNK == 1:
                signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
            try:
                outcomes[check(message, limit)] += 1
            except Failure as failure:
                raise Failure(
                    f"{failure}; seed {seed}, message {place}, max_numel {limit}: {message.numpy().tobytes().hex()}"
                ) from failure
            if report and done % (50 * CHUNK) == 0:
                rate = done / (time.perf_counter() - began)
                print(f"{place + 1} messages, {outcomes['accepted']} accepted, {rate:.0f} a second", flush=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.unregister(signal.SIGPROF)
        tracemalloc.stop()
    return outcomes


def fuzz_by_coverage(arguments: list[str]) -> None:
    """Let libFuzzer look for bodies that reach new lines; it ends the process itself."""
    import atheris

    import thinwire.wire

    # Numba cannot compile what is instrumented, so only this package is, imported once more.
    for name in [name for name in sys.modules if name.startswith(thinwire.wire.__name__)]:
        del sys.modules[name]
    with atheris.instrument_imports(include=["thinwire.wire"]):
        importlib.import_module("thinwire.wire")

    def one(body: bytes) -> None:
        check(message_of(body), 10**6)

    for body in valid_bodies(0):
        one(body)
    tracemalloc.start()
    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Throw damaged and made-up messages at decode.")
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many (default: a million)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one, to go on from there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coverage", metavar="FOLDER", help="guided by coverage, with new inputs kept in FOLDER")
    options, others = parser.parse_known_args()
    torch.set_num_threads(1)
    if options.coverage is not None:
        fuzz_by_coverage([options.coverage, *others])
        return
    outcomes = fuzz(options.seed, options.first, options.messages, report=True)
    for reason, number in outcomes.most_common(40):
        print(f"{number:9}  {reason}")


if __name__ == "__main__":
    main()
