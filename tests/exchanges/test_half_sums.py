"""All-reduces of 16-bit numbers: what is lost, what is counted, what is too large."""

from typing import Any, Literal

import pytest
import torch
from exchange_cases import Party, vectors_of

from thinwire.compressors import Identity, SharedSeedRandK
from thinwire.exchanges import AllReduce
from thinwire.methods import GradientAveraging

FORMATS = {"bf16": torch.bfloat16, "f16": torch.float16}


def party(format: Any, size: int, numel: int, compressor: Any = None) -> Party:
    return Party(GradientAveraging(compressor=compressor or Identity(), exchange=AllReduce(format)), size, numel)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("format", FORMATS)
def test_values_are_rounded_before_and_the_mean_after(format: Literal["bf16", "f16"], size: int) -> None:
    vectors, dtype = vectors_of(size, 257, seed=1), FORMATS[format]
    exact = torch.zeros(257)
    for vector in vectors:
        exact += vector.to(dtype).float()
    expected = (exact / size).to(dtype).float()
    for aggregate in party(format, size, 257).exchange(vectors):
        assert torch.equal(aggregate.mean, expected)
        assert aggregate.mean.dtype == torch.float32
        assert aggregate.finite
        assert aggregate.message_bytes == 2 * 257
    half = torch.finfo(dtype).eps / 2
    doubles = torch.stack(vectors).double()
    bound = half * (doubles.abs().mean(0) + (1 + half) * doubles.mean(0).abs()) + half**2 * doubles.abs().mean(0) + 1e-7
    assert bool(((expected.double() - doubles.mean(0)).abs() <= bound).all())


def test_the_error_does_not_grow_with_the_workers() -> None:
    one = torch.full((4,), 1.0)
    (aggregate, *_) = party("bf16", 300, 4).exchange([one] * 300)
    assert torch.equal(aggregate.mean, one)  # a sum in bf16 ends at 256


@pytest.mark.parametrize("format", FORMATS)
def test_few_values_are_halved_too(format: str) -> None:
    vectors = vectors_of(3, 100, seed=2)
    shared = SharedSeedRandK(density=0.2, shared=True)
    for aggregate in party(format, 3, 100, shared).exchange(vectors):
        assert aggregate.message_bytes == 2 * (20 + 1)
        assert int((aggregate.mean != 0).sum()) <= 20


@pytest.mark.parametrize(
    ("format", "value"), [("f16", 65520.0), ("bf16", 3.4e38), ("bf16", torch.inf), ("f16", torch.nan)]
)
@pytest.mark.parametrize("place", [0, 2])
def test_what_does_not_fit_is_seen_by_all(format: str, value: float, place: int) -> None:
    vectors = vectors_of(3, 50, seed=3)
    vectors[place][7] = value
    assert not any(aggregate.finite for aggregate in party(format, 3, 50).exchange(vectors))
