import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_twins import word_steps_python

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.entropy.word_steps import Words, count_changed, decode_steps, encode_steps

BF16, F16, F32, BYTES = Words(16, 7, 8), Words(16, 10, 5), Words(32, 23, 8), Words(8, 0, 0)
FORMATS = pytest.mark.parametrize("words", [BF16, F16, F32, BYTES], ids=["bf16", "f16", "f32", "bytes"])
INTEGERS = {8: np.uint8, 16: np.int16, 32: np.int32}


def tensor(numbers: "np.ndarray[tuple[int], np.dtype[np.uint64]]", words: Words) -> torch.Tensor:
    return torch.from_numpy(numbers.astype(words.unsigned).view(INTEGERS[words.bits]))


def numbers_of(x: torch.Tensor, words: Words) -> list[int]:
    return [int(each) for each in x.numpy().view(words.unsigned)]


def draw(numel: int, share: float, kind: str, words: Words) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(numel + words.bits)
    before = generator.integers(0, 2**words.bits, numel, dtype=np.uint64)
    near = generator.integers(1, 3, numel, dtype=np.uint64)
    steps = {
        "near": np.where(generator.random(numel) < 0.5, near, 0 - near),
        "any": generator.integers(0, 2**words.bits, numel, dtype=np.uint64),
    }[kind]
    after = np.where(generator.random(numel) < share, before + steps, before)
    return tensor(before, words), tensor(after, words)


def check(before: torch.Tensor, after: torch.Tensor, words: Words) -> torch.Tensor:
    """The code, which brings the words before to those after."""
    counts = count_changed([before], [after], words)
    assert counts == [int((before != after).sum())]
    (code,) = encode_steps([before], [after], words, counts, [16 * before.numel() + 1000])
    assert code is not None
    vector = before.clone()
    (places,) = decode_steps([vector], [code], words, counts)
    assert torch.equal(vector, after)
    assert torch.equal(places.long(), (before != after).nonzero().flatten())
    return code


@FORMATS
@pytest.mark.parametrize("kind", ["near", "any"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("numel", [0, 1, 63, 64, 65, 1000])
def test_round_trip_and_plain_twin(numel: int, share: float, kind: str, words: Words) -> None:
    before, after = draw(numel, share, kind, words)
    code = check(before, after, words)
    lists = numbers_of(before, words), numbers_of(after, words)
    assert code.numpy().tobytes() == word_steps_python(*lists, words.bits, words.shift, words.exponent_bits)


@FORMATS
def test_the_farthest_steps_and_the_turns_of_the_order(words: Words) -> None:
    top, full = 2 ** (words.bits - 1), 2**words.bits - 1
    ends = [0, 1, top - 1, top, top + 1, full]
    pairs = np.array([(one, other) for one in ends for other in ends], np.uint64)
    check(tensor(pairs[:, 0], words), tensor(pairs[:, 1], words), words)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_several_blocks_have_the_codes_of_each(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    pairs = [draw(numel, 0.1, "near", BF16) for numel in (500, 64, 0, 3000)]
    befores, afters = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    counts = count_changed(befores, afters, BF16)
    codes = encode_steps(befores, afters, BF16, counts, [10_000] * 4)
    for before, after, code in zip(befores, afters, codes, strict=True):
        assert code is not None
        assert torch.equal(code, check(before, after, BF16))
    vectors = [before.clone() for before in befores]
    decode_steps(vectors, [code for code in codes if code is not None], BF16, counts)
    assert all(torch.equal(vector, after) for vector, after in zip(vectors, afters, strict=True))


def test_a_code_above_the_limit_is_not_written() -> None:
    before, after = draw(1000, 0.5, "near", BF16)
    counts = count_changed([before], [after], BF16)
    size = check(before, after, BF16).numel()
    assert encode_steps([before], [after], BF16, counts, [size - 1]) == [None]
    assert encode_steps([before], [after], BF16, counts, [size])[0] is not None


def test_weights_of_all_sizes_that_move_equally_far_cost_little() -> None:
    """A step that reaches the last place of small weights only: the classes say which these are."""
    generator = torch.Generator().manual_seed(3)
    before = (0.02 * torch.randn(200_000, generator=generator)).bfloat16()
    after = (before.float() + 1e-5 * torch.randn(before.shape, generator=generator)).bfloat16()
    code = check(before.view(torch.int16), after.view(torch.int16), BF16)
    # An ideal code of the same steps that knows how often each occurs, and nothing of the words before.
    steps = after.view(torch.int16).int() - before.view(torch.int16).int()
    counts = steps.unique(return_counts=True)[1].double()
    ideal_num_bits = float((counts * (counts.sum() / counts).log2()).sum())
    assert 8 * code.numel() < 0.7 * ideal_num_bits


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 100), st.integers(0, 110))
def test_any_bytes_are_decoded_or_refused(data: bytes, numel: int, count: int) -> None:
    before, _ = draw(numel, 0.0, "near", BF16)
    vector = before.clone()
    code = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)
    try:
        (places,) = decode_steps([vector], [code], BF16, [count])
    except WireError:
        assert torch.equal(vector, before)
        return
    assert places.numel() == count
    # There is one code for each change: what is accepted is what is written.
    assert torch.equal(check(before, vector, BF16), code)


def test_each_damaged_byte_and_another_count_are_refused_or_mean_something_else() -> None:
    before, after = draw(2000, 0.05, "near", BF16)
    code = check(before, after, BF16)
    count = int((before != after).sum())
    for other in (count - 1, count + 1, -1, 2001):
        with pytest.raises(WireError):
            decode_steps([before.clone()], [code], BF16, [other])
    with pytest.raises(WireError):
        decode_steps([before.clone()], [torch.cat([code, code[:1]])], BF16, [count])
    for place in range(code.numel()):
        damaged = code.clone()
        damaged[place] ^= 1
        vector = before.clone()
        try:
            decode_steps([vector], [damaged], BF16, [count])
        except WireError:
            continue
        assert not torch.equal(vector, after)


def test_vectors_that_are_not_words_are_refused() -> None:
    short = torch.zeros(3, dtype=torch.int16)
    for other in (
        torch.zeros(4, dtype=torch.int16),
        torch.zeros(3, dtype=torch.int32),
        torch.zeros(3, dtype=torch.bfloat16),
    ):
        with pytest.raises(ConfigError, match="16-bit integers"):
            count_changed([short], [other], BF16)
