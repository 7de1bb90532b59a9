import tracemalloc

import numpy as np
import pytest
import torch

from thinwire.errors import WireError
from thinwire.kernels.bitpack.bits import pack
from thinwire.kernels.crc32c import crc32c
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
from thinwire.wire import decode, encode, explain

FRAME = bytes.fromhex("745701")


def message(data: bytes) -> torch.Tensor:
    """A message whose magic, version and checksum are right."""
    checked = torch.tensor(list(FRAME + data), dtype=torch.uint8)
    ending = torch.tensor(list(crc32c(checked).to_bytes(4, "little")), dtype=torch.uint8)
    return torch.cat([checked, ending])


def seeds() -> list[Payload]:
    few = torch.tensor([2, 17, 40, 99])
    clusters = torch.cat([torch.arange(70), 2**39 + 3 * torch.arange(70)])
    codes = pack(torch.arange(40) % 9, 4)
    skewed = pack((torch.arange(1500) % 100 == 0).long(), 2)
    bits, four = pack(torch.arange(4) % 2, 1), Segments.whole(4)
    drawn = SeededSparse(Codebook(bits, gaussian_table(1), torch.rand(1), four), four, 1, Segments.whole(9))
    return [
        Dense(torch.randn(9)),
        Dense(torch.randn(9).to(torch.float16)),
        Sparse(100, few, Dense(torch.randn(4))),
        Sparse(2**40, few, Dense(torch.randn(4))),
        Sparse(128, torch.arange(0, 128, 3), Signs(pack(torch.arange(43) % 2, 1), torch.rand(1), Segments.whole(43))),
        Levels(codes, torch.rand(4), 4, Segments.uniform(40, 13)),
        Signs(pack(torch.arange(40) % 2, 1), torch.rand(3), Segments.of_sizes([20, 0, 20])),
        Sparse(2**40, clusters, Dense(torch.randn(140))),
        Grid(codes, 9, torch.randn(4), torch.rand(4), Segments.uniform(40, 13)),
        Grid(skewed, 3, torch.randn(1), torch.rand(1), Segments.whole(1500), "entropy"),
        Codebook(codes, gaussian_table(4), torch.rand(3), Segments.of_sizes([20, 0, 20])),
        Codebook(codes, torch.arange(9.0), torch.rand(1), Segments.whole(40), "entropy"),
        PowersOfTwo(codes, 4, torch.rand(1), Segments.whole(40)),
        Rotated(Dense(torch.randn(5)), 2**64 - 1, 2, 4),
        DCT(Sparse(9, torch.tensor([3]), Dense(torch.ones(1))), 3),
        SeededSparse(Dense(torch.ones(5)), Segments.of_sizes([2, 3]), 5, Segments.uniform(8, 4)),
        SeededSparse(Dense(torch.ones(5)), Segments.uniform(5, 3), 5, Segments.of_sizes([4, 4])),
        Constant(torch.rand(2), Segments.uniform(7, 4)),
        Sum((Dense(torch.randn(9)), Constant(torch.rand(1), Segments.whole(9)))),
        LowRank(torch.rand(3, 2), torch.rand(4, 2), 11),
        Concat((Dense(torch.randn(3)), Signs(pack(torch.arange(5) % 2, 1), torch.rand(1), Segments.whole(5)))),
        Concat((Rotated(Sum((drawn, SeededSparse(Signs(bits, torch.rand(1), four), four, 2, Segments.whole(9)))), 3),)),
    ]


NUM_SEEDS = len(seeds())


def decodes_or_is_refused(data: bytes, max_numel: int | None = None) -> bool:
    """Whether it decodes; where it does, encoding again must give a message that means the same.

    What explains messages refuses the same ones, for the same reason.
    """
    payload = reason = None
    try:
        payload = decode(message(data), max_numel=max_numel)
    except WireError as error:
        reason = str(error)
    assert explain(message(data)).error == reason or (reason is not None and max_numel is not None)
    if payload is None:
        return False
    again = encode(payload)
    assert torch.equal(encode(decode(again)), again)
    return True


@pytest.mark.parametrize("number", range(NUM_SEEDS))
def test_every_truncation_and_extension_is_refused(number: int) -> None:
    whole = encode(seeds()[number])
    body = whole[3:-4].numpy().tobytes()
    for length in range(whole.numel()):
        with pytest.raises(WireError):
            decode(whole[:length])
    for length in range(len(body)):
        assert not decodes_or_is_refused(body[:length])
    assert not decodes_or_is_refused(body + b"\0")
    assert decodes_or_is_refused(body)


@pytest.mark.parametrize("number", range(NUM_SEEDS))
def test_every_flipped_bit_is_noticed_by_the_checksum(number: int) -> None:
    whole = encode(seeds()[number])
    for bit in range(8 * whole.numel()):
        damaged = whole.clone()
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(WireError):
            decode(damaged)


@pytest.mark.parametrize("number", range(NUM_SEEDS))
def test_forged_messages_decode_or_are_refused(number: int) -> None:
    generator = np.random.default_rng(number)
    body = np.frombuffer(encode(seeds()[number])[3:-4].numpy().tobytes(), np.uint8)
    for _ in range(400):
        forged = body.copy()
        places = generator.integers(0, len(forged), generator.integers(1, 4))
        forged[places] = generator.integers(0, 256, len(places))
        cut, end = sorted(generator.integers(0, len(forged) + 1, 2).tolist())
        decodes_or_is_refused(forged.tobytes())
        decodes_or_is_refused(forged[:cut].tobytes() + forged[end:].tobytes(), max_numel=1000)


def test_random_bytes_decode_or_are_refused() -> None:
    generator = np.random.default_rng(1)
    for _ in range(2000):
        data = generator.integers(0, 256, generator.integers(0, 40), dtype=np.uint8)
        data[:1] = generator.integers(1, 15)
        decodes_or_is_refused(data.tobytes(), max_numel=10_000)


HUGE = "8080808080" + "8020"  # 2**47
BOMBS = {
    "dense": "01 00 " + HUGE,
    "levels whole": "03" + HUGE + "00 01 00000000 00",
    "levels, segments of one": "03" + HUGE + "01 01 01",
    "levels, listed sizes": "03" + HUGE + "02" + HUGE + "01",
    "signs": "04" + HUGE + "00 00000000",
    "sparse of dense": "02" + HUGE + "01 00" + HUGE + "00",
    "sparse of sparse of nothing": "02" + HUGE + "02" + HUGE + "01 00 00 01 00" + "01 00",
    "fixed width": "02 8008 02 8008 01 00 00 01 00 00",
    "bitmap": "02" + HUGE + "01 00 00 02",
    "deep": "02 00" * 5000,
    "many sizes": "04 00 02 ffff7f" + "00" * 100,
    "a length past 2**63": "01 00 " + "ff" * 9 + "7f",
    "Rice": "02" + HUGE + "02" + HUGE + "01 00 00 01 00 01 00",
    "adaptive": "02" + HUGE + "02" + HUGE + "01 00 00 01 00 04 00",
    "grid": "05" + HUGE + "00 04" + "00" * 8 + "00",
    "grid, entropy": "05" + HUGE + "00 01" + "00" * 8 + "02 01 8020",
    "grid, segments of one": "05" + HUGE + "01 01 04",
    "codebook": "06" + HUGE + "00 01" + "00" * 4 + "00",
    "a huge table": "06 00 00 00" + HUGE,
    "powers of two": "07" + HUGE + "00 01 00000000",
    "seeded sparse, segments of one": "0a" + HUGE + "01 01" + "00" * 8 + "0b" + HUGE + "00 00000000 01 01",
    "seeded sparse, few segments of one": "0a" + HUGE + "01 01" + "00" * 8 + "0b 02 00 00000000 02 02 01 01",
    "constant, segments of one": "0b" + HUGE + "01 01 00000000",
    "sum": "0c" + HUGE + "01 00 00",
    "low rank": "0d" + HUGE + "01 01" + "00" * 8,
    "low rank, columns": "0d" + HUGE + HUGE + "01" + "00" * 8,
    "low rank, rank": "0d 01 01" + HUGE + "00" * 8,
    "concat": "0e" + HUGE + "01 00 00",
    "concat, together too long": "0e 03" + ("0b" + HUGE + "00 00000000") * 3,
    "deep rotations": ("08" + "00" * 8 + "01 00") * 5000,
    "deep sums": "0c 01" * 5000,
    "exp-Golomb": "02" + HUGE + "02" + HUGE + "01 00 00 01 00 03 00",
}


@pytest.mark.parametrize("name", BOMBS)
def test_huge_declarations_take_no_memory(name: str) -> None:
    bomb = message(bytes.fromhex(BOMBS[name]))
    tracemalloc.start()
    try:
        for max_numel in (None, 1000):
            with pytest.raises(WireError):
                decode(bomb, max_numel=max_numel)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_a_huge_sparse_vector_is_cheap_and_can_be_refused() -> None:
    whole = encode(Sparse(2**40, torch.tensor([2**39]), Dense(torch.ones(1))))
    tracemalloc.start()
    try:
        assert decode(whole).numel == 2**40
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    with pytest.raises(WireError, match="at most 1000"):
        decode(whole, max_numel=1000)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("00", "kind 0"),
        ("0f", "kind 15"),
        ("01 03 00", "number format"),
        ("01 00 8000", "shortest form"),
        ("02 0a 01 01 01 803f 05", "index code"),
        ("02 0a 01 01 01 803f 04", "past the end"),
        ("02 0a 01 01 01 803f 04 ff", "not below"),
        ("02 01 01 01 01 803f 04 01", "not those"),
        ("02 0a 01 01 01 803f 00 0a", "do not ascend"),
        ("02 0a 01 01 02 803f803f 00 11", "do not ascend"),
        ("02 0a 01 01 01 803f 00 11", "not zero"),
        ("02 0a 01 01 01 803f 01 29 01", "parameter"),
        ("02 0a 01 01 01 803f 01 00 0004", "not below"),
        ("02 0a 01 01 01 803f 01 00 03", "not zero"),
        ("02 0a 01 01 01 803f 02 0004", "after the last"),
        ("02 0a 01 01 01 803f 03 00", "cannot hold"),
        ("02 0a 01 01 01 803f 03 10 01", "not zero"),
        ("02 0a 01 01 01 803f 03 00 03", "not zero"),
        ("02 0a 01 01 01 803f 03 00 02 02", "not zero"),
        ("02 0a 01 01 01 803f 03 00 00", "past the end"),
        ("02 0a 01 01 01 803f 03 00 02", "past the end"),
        ("02 0a 01 01 01 803f 03 00 08 03", "not below"),
        ("02 0a 01 01 01 803f 03 00 00000000000002", "not below"),
        ("02 0a 01 01 01 803f 03 00 01 00", "bytes follow"),
        ("02 0a 01 01 01 803f 02 0300", "bits are set"),
        ("02 01 01 01 02 803f803f 00", "a vector of 1"),
        ("03 02 00 01 00000000 00 0f", "above 2"),
        ("03 01 00 01 00000000 00 04", "not zero"),
        ("03 01 00 00 00000000", "levels are declared"),
        ("03 02 01 00", "segments of 0"),
        ("03 02 01 02", "it is one segment"),
        ("04 00 01 01", "it is one segment"),
        ("0b 02 01 ffffffffffffffff7f 00000000", "it is one segment"),
        ("03 02 03", "segment code"),
        ("04 02 02 01 03 00000000 01", "3 entries together"),
        ("04 02 02 01 8200 00000000 01", "shortest form"),
        ("04 02 00 00000000 04", "not zero"),
        ("01 01 01 803f 00", "1 bytes follow"),
        ("05 02 00 00", "grid of 0 points"),
        ("05 02 00 818004", "grid of 65537 points"),
        ("05 02 00 03 0000000000000000 00 0f", "above 2"),
        ("05 01 00 01 0000000000000000 00 01", "above 0"),
        ("05 01 00 03 0000000000000000 00 04", "not zero"),
        ("05 01 00 03 0000000000000000 01 00", "coding 1"),
        ("05 01 00 03 0000000000000000 02 02", "form 2"),
        ("06 01 00 09", "table 9"),
        ("06 01 00 00 01 00000000", "table of 1 numbers"),
        ("06 01 00 00 8102", "table of 257 numbers"),
        ("06 01 00 00 02 0000803f 00000000 00000000 00 00", "descend"),
        ("06 01 00 00 03 000000000000000000000000 00000000 00 03", "above 2"),
        ("06 01 00 01 00000000 00 02", "not zero"),
        ("07 01 00 00 00000000 00", "0 powers"),
        ("07 01 00 8001 00000000 00", "128 powers"),
        ("07 01 00 01 00000000 03", "above 2"),
        ("07 01 00 01 00000000 04", "not zero"),
        ("08 0000000000000000 00 00 01 00 00", "0 rounds"),
        ("08 0000000000000000 03 00 01 00 00", "3 rounds"),
        ("08 0000000000000000 01 03 01 00 00", "blocks of 3"),
        ("08 0000000000000000 01 80808080808080 01 01 00 00", "blocks of"),
        ("09 00 01 00 00", "side 0"),
        ("09 8120 01 00 00", "side 4097"),
        ("0a 01 00 0000000000000000 01 01 02 803f803f 00", "2 values"),
        ("0a 04 01 02 0000000000000000 01 01 02 803f803f 00", "1 segments of values"),
        ("0a 04 01 02 0000000000000000 01 01 03 803f803f803f 02 02 03 00", "keeps more"),
        ("0a 03 01 02 0000000000000000 01 01 02 803f803f 02 02 00 02", "keeps more"),
        ("0c 00", "sum of 0"),
        ("0c 41", "sum of 65"),
        ("0c 02 01 00 00 01 01 01 0000", "of 0 and of 1"),
        ("0d 00 00 01", "0 columns"),
        ("0d 00 01 01", "1 columns"),
        ("0d 02 03 01", "3 columns"),
        ("0d 02 01 00", "rank of 0"),
        ("0e 00", "0 parts"),
        ("0e 02 00", "2 parts"),
    ],
)
def test_what_is_not_canonical_is_refused(body: str, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode(message(bytes.fromhex(body)))


def test_the_frame_is_checked() -> None:
    whole = encode(Dense(torch.ones(2)))
    other = whole.clone()
    other[0] = 0
    newer = whole.clone()
    newer[2] = 2
    for wrong, reason in ((other, "begins with"), (newer, "version 2"), (whole[:6], "at least")):
        with pytest.raises(WireError, match=reason):
            decode(wrong)
    for no_bytes in (whole.to(torch.int32), whole.view(1, -1)):
        with pytest.raises(WireError, match="uint8 vector"):
            decode(no_bytes)


EXPANDING = [
    "08" + "00" * 8 + "01 00 0b" + HUGE + "00 00000000",
    "09 02 0b" + HUGE + "00 00000000",
    "0a" + HUGE + "00" + "00" * 8 + "01 00 01 00000000 00",
    "0a" + HUGE + "00" + "00" * 8 + "0b" + "808080800f" + "00 00000000 00",
    "0b" + HUGE + "00 00000000",
    "0c 03" + ("0b" + HUGE + "00 00000000") * 3,
    "0e 02 0b" + HUGE + "00 00000000" + "01 01 00",
]


@pytest.mark.parametrize("body", EXPANDING)
def test_few_bytes_for_a_huge_vector_are_cheap_and_can_be_refused(body: str) -> None:
    whole = message(bytes.fromhex(body))
    tracemalloc.start()
    try:
        assert decode(whole).numel == 2**47
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    with pytest.raises(WireError, match="at most 1000"):
        decode(whole, max_numel=1000)


def test_what_is_concatenated_is_together_as_long_as_the_receiver_allows() -> None:
    whole = encode(Concat((Constant(torch.ones(1), Segments.whole(600)), Constant(torch.ones(1), Segments.whole(401)))))
    assert decode(whole, max_numel=1001).numel == 1001
    with pytest.raises(WireError, match="1001 entries"):
        decode(whole, max_numel=1000)
