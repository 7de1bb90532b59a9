import math

import numpy as np
import pytest
import torch

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bitpack.bits import pack
from thinwire.kernels.entropy.rans import (
    BLOCK,
    rans_counts,
    rans_decode,
    rans_decode_prefix,
    rans_encode,
    rans_frequencies,
)
from thinwire.kernels.entropy.rans_torch import rans_counts_torch, rans_decode_torch, rans_encode_torch

COUNTS = [1, 7, 63, 64, 65, 4096, 5003]
WIDTHS = [1, 2, 3, 4, 8, 9, 16, 31]
KINDS = ["normal", "constant", "equal", "rare"]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> int:
    torch.set_num_threads(request.param)
    return int(request.param)


def draw(count: int, width: int, kind: str = "normal") -> torch.Tensor:
    generator = np.random.default_rng(count)
    top = 2**width - 1
    codes = {
        "normal": np.clip(np.rint((generator.standard_normal(count) / 6 + 0.5) * top), 0, top),
        "constant": np.full(count, top // 2),
        "equal": np.arange(count) % (top + 1),
        "rare": np.where(np.arange(count) % 997 == 5, top, 0),
    }[kind]
    return torch.from_numpy(codes.astype(np.int64))


def by_definition(codes: list[int], width: int, frequencies: list[int]) -> bytes:
    """One block, one entry after another, with integers of any size and divisions."""
    shift = max(0, width - 8)
    begins = [sum(frequencies[:symbol]) for symbol in range(len(frequencies))]
    states = [2**16] * 32
    words: list[int] = []
    for i in reversed(range(len(codes))):
        symbol, state = codes[i] >> shift, states[i % 32]
        if state >= frequencies[symbol] << 20:
            words.insert(0, state % 2**16)
            state >>= 16
        quotient, rest = divmod(state, frequencies[symbol])
        states[i % 32] = quotient * 4096 + begins[symbol] + rest
    low = pack(torch.tensor([code % 2**shift for code in codes]), shift).numpy().tobytes() if shift else b""
    numbers = [number.to_bytes(4, "little") for number in [len(words), *states]]
    return low + b"".join(numbers) + b"".join(word.to_bytes(2, "little") for word in words)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", COUNTS)
def test_definition_and_round_trip(count: int, width: int, kind: str) -> None:
    codes = draw(count, width, kind)
    packed = pack(codes, width)
    frequencies, data = rans_encode(packed, count, width)
    assert data.numpy().tobytes() == by_definition(codes.tolist(), width, frequencies.tolist())
    assert torch.equal(rans_decode(data, count, width, frequencies), packed)
    decoded, num_bytes = rans_decode_prefix(torch.cat([data, data]), count, width, frequencies)
    assert torch.equal(decoded, packed)
    assert num_bytes == data.numel()


@pytest.mark.parametrize("width", [2, 8, 9])
@pytest.mark.parametrize("count", [1, 65, 4096, BLOCK + 77])
def test_twins_agree(count: int, width: int) -> None:
    packed = pack(draw(count, width), width)
    counts = rans_counts(packed, count, width)
    assert torch.equal(counts, rans_counts_torch(packed, count, width))
    assert torch.equal(counts, torch.bincount(draw(count, width) >> max(0, width - 8), minlength=2 ** min(width, 8)))
    frequencies, data = rans_encode(packed, count, width)
    assert torch.equal(frequencies, rans_frequencies(counts))
    assert torch.equal(data, rans_encode_torch(packed, count, width, frequencies))
    assert torch.equal(rans_decode_torch(data, count, width, frequencies), packed)


@pytest.mark.parametrize("width", [1, 4, 8, 16])
@pytest.mark.parametrize("count", [2 * BLOCK, 2**20, 2**20 + 12_345])
def test_threads_do_not_change_the_bytes(count: int, width: int, threads: int) -> None:
    packed = pack(draw(count, width), width)
    frequencies, data = rans_encode(packed, count, width)
    assert torch.equal(rans_decode(data, count, width, frequencies), packed)
    torch.set_num_threads(3 - threads)
    assert torch.equal(rans_encode(packed, count, width)[1], data)
    assert torch.equal(rans_decode(data, count, width, frequencies), packed)


def test_a_constant_vector_costs_its_states() -> None:
    frequencies, data = rans_encode(pack(torch.full((BLOCK,), 3), 4), BLOCK, 4)
    assert frequencies[3] == 4096
    assert data.numel() == 132


@pytest.mark.parametrize("seed", range(20))
def test_frequencies_follow_the_counts(seed: int) -> None:
    generator = np.random.default_rng(seed)
    num_symbols = int(generator.integers(1, 257))
    counts = (generator.pareto(0.3, num_symbols) * (generator.random(num_symbols) < 0.7)).clip(0, 1e12)
    counts[generator.integers(num_symbols)] = 1
    whole = torch.from_numpy(counts.astype(np.int64))
    frequencies = rans_frequencies(whole)
    assert int(frequencies.sum()) == 4096
    assert torch.equal(frequencies > 0, whole > 0)
    # Only symbols rarer than 1 in 4096 get more than the next integer; others pay for them.
    exact = whole * 4096 / whole.sum()
    assert bool((frequencies <= (exact.floor() + 1)).all())


def test_rare_symbols_are_paid_by_the_most_frequent() -> None:
    counts = torch.ones(256, dtype=torch.int64)
    counts[[10, 20]] = 10**9
    frequencies = rans_frequencies(counts)
    assert frequencies[[10, 20, 30]].tolist() == [1921, 1921, 1]


def test_equal_symbols_cost_their_logarithm() -> None:
    count = 2**17
    data = rans_encode(pack(torch.arange(count) % 256, 8), count, 8)[1]
    assert data.numel() <= count + 132
    three = rans_encode(pack(torch.arange(count) % 3, 2), count, 2)[1]
    assert three.numel() <= 1.01 * count * math.log2(3) / 8 + 132


@pytest.mark.parametrize("counts", [[], [0, 0], [-1, 5], [2**48, 1]])
def test_bad_counts_are_refused(counts: list[int]) -> None:
    with pytest.raises(ConfigError, match="counts are"):
        rans_frequencies(torch.tensor(counts, dtype=torch.int64))


@pytest.mark.parametrize(
    "frequencies",
    [[], [0], [4095], [4097], [4096, 1], [4097, -1], [2**63 - 1, 4097 - 2**63], [2**62] * 4, [1024] * 5, [0] * 256],
)
def test_bad_frequencies_are_refused(frequencies: list[int]) -> None:
    data = rans_encode(torch.zeros(1, dtype=torch.uint8), 4, 2)[1]
    with pytest.raises(WireError, match="frequencies of at most 4 symbols"):
        rans_decode(data, 4, 2, torch.tensor(frequencies, dtype=torch.int64))


@pytest.mark.parametrize("width", [2, 9])
def test_every_truncation_and_extension_is_refused(width: int) -> None:
    packed = pack(draw(300, width), width)
    frequencies, data = rans_encode(packed, 300, width)
    for length in range(data.numel()):
        with pytest.raises(WireError):
            rans_decode(data[:length], 300, width, frequencies)
    with pytest.raises(WireError, match="were given"):
        rans_decode(torch.cat([data, data[:1]]), 300, width, frequencies)


@pytest.mark.parametrize("width", [2, 9])
def test_damage_is_refused_or_has_one_meaning(width: int) -> None:
    generator = np.random.default_rng(width)
    count = 300
    frequencies, data = rans_encode(pack(draw(count, width), width), count, width)
    decoded = 0
    for _ in range(3000):
        damaged = data.clone()
        places = generator.integers(0, damaged.numel(), generator.integers(1, 3))
        damaged[places] = torch.from_numpy(generator.integers(0, 256, len(places), dtype=np.uint8))
        try:
            packed = rans_decode(damaged, count, width, frequencies)
        except WireError:
            continue
        decoded += 1
        assert torch.equal(rans_encode_torch(packed, count, width, frequencies), damaged) or damaged.equal(data)
    # Low bits may be any.
    assert decoded < 3000 if width > 8 else decoded < 30


def test_declared_words_must_be_there_and_used() -> None:
    frequencies, data = rans_encode(pack(draw(3000, 2), 2), 3000, 2)
    num_words = int(data[:4].view(torch.int32))
    for number in (0, num_words - 1, num_words + 1, 2**31, 2**32 - 1):
        forged = data.clone()
        forged[:4] = torch.tensor(list(number.to_bytes(4, "little")), dtype=torch.uint8)
        with pytest.raises(WireError):
            rans_decode_prefix(forged, 3000, 2, frequencies)
    small = data.clone()
    small[4:8] = torch.tensor([255, 255, 0, 0], dtype=torch.uint8)
    with pytest.raises(WireError, match="below"):
        rans_decode(small, 3000, 2, frequencies)
    one_word_more = torch.cat([data, torch.zeros(2, dtype=torch.uint8)])
    one_word_more[0] += 1
    with pytest.raises(WireError, match="words are left"):
        rans_decode(one_word_more, 3000, 2, frequencies)
    for count in (-1, 2**47):
        with pytest.raises(WireError, match="cannot hold"):
            rans_decode(data, count, 2, frequencies)
