import tracemalloc

import numpy as np
import pytest
import torch

from thinwire.errors import WireError
from thinwire.kernels.bits import pack
from thinwire.kernels.crc32c import crc32c
from thinwire.layout import Segments
from thinwire.payloads import Dense, Levels, Payload, Signs, Sparse
from thinwire.wire import decode, encode

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
    return [
        Dense(torch.randn(9)),
        Dense(torch.randn(9).to(torch.float16)),
        Sparse(100, few, Dense(torch.randn(4))),
        Sparse(2**40, few, Dense(torch.randn(4))),
        Sparse(128, torch.arange(0, 128, 3), Signs(pack(torch.arange(43) % 2, 1), torch.rand(1), Segments.whole(43))),
        Levels(codes, torch.rand(4), 4, Segments.uniform(40, 13)),
        Signs(pack(torch.arange(40) % 2, 1), torch.rand(3), Segments.of_sizes([20, 0, 20])),
        Sparse(2**40, clusters, Dense(torch.randn(140))),
    ]


def decodes_or_is_refused(data: bytes, max_numel: int | None = None) -> bool:
    """Whether it decodes; where it does, encoding again must give a message that means the same."""
    try:
        payload = decode(message(data), max_numel=max_numel)
    except WireError:
        return False
    again = encode(payload)
    assert torch.equal(encode(decode(again)), again)
    return True


@pytest.mark.parametrize("number", range(8))
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


@pytest.mark.parametrize("number", range(8))
def test_every_flipped_bit_is_noticed_by_the_checksum(number: int) -> None:
    whole = encode(seeds()[number])
    for bit in range(8 * whole.numel()):
        damaged = whole.clone()
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(WireError):
            decode(damaged)


@pytest.mark.parametrize("number", range(8))
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
        data[:1] = generator.integers(1, 5)
        decodes_or_is_refused(data.tobytes(), max_numel=10_000)


HUGE = "8080808080" + "8020"  # 2**47
BOMBS = {
    "dense": "01 00 " + HUGE,
    "levels whole": "03" + HUGE + "00 01 00000000",
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
        ("09", "kind 9"),
        ("01 03 00", "number format"),
        ("01 00 8000", "shortest form"),
        ("02 0a 01 01 01 803f 04", "index code"),
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
        ("03 02 00 01 00000000 0f", "above 2"),
        ("03 01 00 01 00000000 04", "not zero"),
        ("03 01 00 00 00000000", "levels are declared"),
        ("03 02 01 00", "segments of 0"),
        ("03 02 03", "segment code"),
        ("04 02 02 01 03 00000000 01", "3 entries together"),
        ("04 02 02 01 8200 00000000 01", "shortest form"),
        ("04 02 00 00000000 04", "not zero"),
        ("01 01 01 803f 00", "1 bytes follow"),
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
