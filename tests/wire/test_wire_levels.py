import math
import tracemalloc
from collections import Counter
from typing import Literal

import numpy as np
import pytest
import torch

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bitpack.bits import num_packed_bytes, pack
from thinwire.kernels.crc32c import crc32c
from thinwire.layout import Segments
from thinwire.payloads import Dense, Levels, Sparse
from thinwire.wire import decode, encode, encoded_num_bytes

Coding = Literal["packed", "elias", "entropy"]
CODINGS: list[Coding] = ["packed", "elias", "entropy"]
NUMELS = [0, 1, 7, 63, 64, 65, 4096]
NUM_LEVELS = [1, 2, 3, 7, 127, 32767]


def levels_of(codes: torch.Tensor, num_levels: int, coding: Coding, segments: Segments | None = None) -> Levels:
    segments = Segments.whole(codes.numel()) if segments is None else segments
    scales = torch.linspace(0, 1, segments.count)
    return Levels(pack(codes, (2 * num_levels).bit_length()), scales, num_levels, segments, coding)


def draw(numel: int, num_levels: int, kind: str = "heavy") -> torch.Tensor:
    """Codes as QSGD makes them, in buckets of 512 that are scaled by their largest entry."""
    generator = np.random.default_rng(numel)
    vector = generator.standard_t(3, numel) if kind == "heavy" else generator.standard_normal(numel)
    buckets = np.pad(vector, (0, -numel % 512)).reshape(-1, 512)
    scaled = buckets / np.abs(buckets).max(1, keepdims=True, initial=1e-9) * num_levels
    levels = np.floor(scaled + generator.random(scaled.shape)).clip(-num_levels, num_levels)
    return torch.from_numpy(levels.reshape(-1)[:numel].astype(np.int64)) + num_levels


def message(body: bytes) -> torch.Tensor:
    """A message whose magic, version and checksum are right."""
    checked = torch.tensor(list(b"tW\1" + body), dtype=torch.uint8)
    return torch.cat([checked, torch.tensor(list(crc32c(checked).to_bytes(4, "little")), dtype=torch.uint8)])


def body_of(payload: Levels) -> bytes:
    return encode(payload)[3:-4].numpy().tobytes()


def assert_round_trip(payload: Levels) -> torch.Tensor:
    whole = encode(payload)
    assert encoded_num_bytes(payload) == whole.numel()
    again = decode(whole)
    assert isinstance(again, Levels)
    assert torch.equal(again.codes, payload.codes)
    assert torch.equal(again.scales, payload.scales)
    assert (again.num_levels, again.segments, again.coding) == (payload.num_levels, payload.segments, payload.coding)
    return whole


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("num_levels", NUM_LEVELS)
@pytest.mark.parametrize("numel", NUMELS)
def test_round_trips(numel: int, num_levels: int, coding: Coding) -> None:
    assert_round_trip(levels_of(draw(numel, num_levels), num_levels, coding))
    assert_round_trip(levels_of(draw(numel, num_levels), num_levels, coding, Segments.uniform(numel, 100)))
    for constant in (0, num_levels, 2 * num_levels):
        assert_round_trip(levels_of(torch.full((numel,), constant), num_levels, coding))
    assert_round_trip(levels_of(torch.arange(numel) % (2 * num_levels + 1), num_levels, coding))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("num_levels", [1, 7, 127, 32767])
def test_a_million_entries(num_levels: int, coding: Coding) -> None:
    assert_round_trip(levels_of(draw(10**6, num_levels), num_levels, coding))


def test_levels_in_a_sparse_vector() -> None:
    for coding in CODINGS:
        whole = encode(Sparse(10**6, torch.arange(5000) * 7, levels_of(draw(5000, 1), 1, coding)))
        again = decode(whole)
        assert isinstance(again, Sparse)
        assert isinstance(again.values, Levels)
        assert again.values.coding == coding
        assert torch.equal(encode(again), whole)


@pytest.mark.parametrize("kind", ["heavy", "normal"])
@pytest.mark.parametrize("num_levels", [1, 7, 127])
@pytest.mark.parametrize("numel", [100_000, 2**20])
def test_entropy_coded_levels_are_near_their_entropy(numel: int, num_levels: int, kind: str) -> None:
    codes = draw(numel, num_levels, kind)
    entropy_bits = sum(n * math.log2(numel / n) for n in Counter(codes.tolist()).values())
    payload = levels_of(codes, num_levels, "entropy", Segments.uniform(numel, 512))
    # Everything but the scales, which are not levels: frame, table and states too.
    num_bytes = encode(payload).numel() - 4 * payload.scales.numel()
    assert num_bytes <= 1.03 * entropy_bits / 8


@pytest.mark.parametrize("num_levels", [1, 7, 127, 32767])
@pytest.mark.parametrize("numel", [0, 1, 100, 5000])
def test_entropy_coding_is_at_most_one_byte_above_packing(numel: int, num_levels: int) -> None:
    uniform = torch.from_numpy(np.random.default_rng(1).integers(0, 2 * num_levels + 1, numel))
    for codes in (uniform, draw(numel, num_levels)):
        packed, coded = levels_of(codes, num_levels, "packed"), levels_of(codes, num_levels, "entropy")
        assert encoded_num_bytes(coded) <= encoded_num_bytes(packed) + 1


@pytest.mark.parametrize(("coding", "num_levels"), [("packed", 3), ("elias", 3), ("entropy", 3), ("entropy", 300)])
def test_every_truncation_is_refused(coding: Coding, num_levels: int) -> None:
    # Long enough to be worth rANS.
    codes = draw(3000 if coding == "entropy" else 40, num_levels)
    body = body_of(levels_of(codes, num_levels, coding))
    for length in range(len(body)):
        with pytest.raises(WireError):
            decode(message(body[:length]))
    with pytest.raises(WireError, match="bytes follow"):
        decode(message(body + b"\0"))


@pytest.mark.parametrize(("coding", "num_levels"), [("packed", 3), ("elias", 3), ("entropy", 3), ("entropy", 300)])
def test_forged_messages_decode_or_are_refused(coding: Coding, num_levels: int) -> None:
    numel = 3000 if coding == "entropy" else 40
    body = body_of(levels_of(draw(numel, num_levels), num_levels, coding))
    bits = range(8 * len(body)) if len(body) < 100 else np.random.default_rng(3).integers(0, 8 * len(body), 1000)
    for bit in [*range(8 * 60), *bits]:
        forged = bytearray(body)
        if bit >= 8 * len(forged):
            continue
        forged[bit // 8] ^= 1 << (bit % 8)
        try:
            payload = decode(message(bytes(forged)), max_numel=10_000)
        except WireError:
            continue
        again = encode(payload)
        assert torch.equal(encode(decode(again)), again)


def rans_body(numel: int, frequencies: list[int], rest: bytes = b"") -> bytes:
    """A whole vector with one level, entropy-coded in form 1."""
    table = b"".join(bytes([f]) if f < 128 else bytes([f & 127 | 128, f >> 7]) for f in frequencies)
    count = bytes([numel & 127 | 128, numel >> 7 & 127 | 128, numel >> 14])
    return b"\3" + count + b"\0\1" + bytes(4) + b"\2\1" + table + rest


CONSTANT = bytes(4) + 32 * (2**16).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (rans_body(100_000, [0, 0, 0], CONSTANT), "sum 4096"),
        (rans_body(100_000, [4096, 1, 0], CONSTANT), "sum 4096"),
        (rans_body(100_000, [0, 4095, 0], CONSTANT), "sum 4096"),
        (rans_body(100_000, [8191, 8191, 8191], CONSTANT), "sum 4096"),
        (rans_body(100_000, [0, 4096, 0], CONSTANT[:-1]), "cannot hold"),
        (rans_body(140_000, [0, 4096, 0], CONSTANT), "cannot hold"),
        (rans_body(100_000, [0, 4095, 1], CONSTANT), "past the end"),
        (rans_body(100_000, [0, 4096, 0], bytes(132)), "below 2"),
        (rans_body(100_000, [0, 4096, 0], bytes(4) + b"\1\0\1\0" + CONSTANT[8:]), "below 2"),
        (rans_body(100_000, [0, 4096, 0], b"\1" + CONSTANT[1:] + b"\0\0"), "words are left"),
        (rans_body(100_000, [0, 4096, 0], b"\1" + CONSTANT[1:]), "are declared"),
        (rans_body(100_000, [0, 4096, 0], 4 * b"\xff" + CONSTANT[4:]), "are declared"),
        (bytes.fromhex("03 01 00 01 00000000 03"), "level code 3"),
        (bytes.fromhex("03 01 00 01 00000000 02 02"), "form 2"),
        (bytes.fromhex("03 01 00 01 00000000 02 00 03"), "above 2"),
        (bytes.fromhex("03 01 00 01 00000000 01 0b"), "larger"),
        (bytes.fromhex("03 01 00 01 00000000 01 03"), "larger"),
        (bytes.fromhex("03 01 00 01 00000000 01 02"), "not zero"),
    ],
)
def test_what_is_not_as_specified_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode(message(body))


def test_a_constant_block_is_accepted_and_bounded() -> None:
    whole = message(rans_body(100_000, [0, 4096, 0], CONSTANT))
    payload = decode(whole)
    assert isinstance(payload, Levels)
    assert not payload.levels().any()
    with pytest.raises(WireError, match="at most 1000"):
        decode(whole, max_numel=1000)


@pytest.mark.parametrize("tail", ["00", "01", "02 00", "02 01 00 8020 00", "02 01 00 8020 00" + "ff" * 4000])
def test_a_huge_vector_takes_no_memory(tail: str) -> None:
    bomb = message(bytes.fromhex("03" + "8080808080" + "8020" + "00 01 00000000" + tail))
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("numel", [100_000, 10**6])
def test_memory_of_decoding_is_bounded(numel: int, coding: Coding) -> None:
    payload = levels_of(torch.full((numel,), 127), 127, coding)
    whole = encode(payload)
    decode(whole)
    tracemalloc.start()
    try:
        decode(whole)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Beside tables and tiles: twice what is decoded, and 1000 times the message.
    assert peak <= min(2 * num_packed_bytes(numel, 8), 1000 * whole.numel()) + 2**18


def test_invalid_payloads_are_refused() -> None:
    codes = torch.tensor([3, 0, 0])
    codings: tuple[Coding, ...] = ("elias", "entropy")
    for coding in codings:
        with pytest.raises(ConfigError, match="one is larger"):
            encode(levels_of(codes, 1, coding))
    for coding in codings:
        with pytest.raises(ConfigError, match="one is larger"):
            encode(levels_of(torch.tensor([1023] * 5000), 500, coding))
    with pytest.raises(ConfigError, match="'huffman'"):
        encode(levels_of(codes, 2, "huffman"))  # type: ignore[arg-type]
    assert decode(encode(Dense(torch.zeros(1)))).numel == 1
