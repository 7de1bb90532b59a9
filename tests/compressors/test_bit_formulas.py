"""Lengths of messages against the papers' formulas: what is left over is the frame, which does not grow with d."""

import math

import pytest
import torch
from torch import Tensor

from thinwire.compressors import Bernoulli, Bins, Compressor, FixedSize, KLevel, TopK
from thinwire.layout import Segments
from thinwire.payloads import Payload, Sparse, Sum
from thinwire.random import Key
from thinwire.wire import encode

FRAME = 26 * 8
"""Bits of a nested message that stand for no entry: two tags and lengths, at most three varints, the checksum."""
LENGTHS = (1 << 14, 1 << 17)
FLOAT, SEED = 32, 64


def vector(numel: int) -> Tensor:
    return torch.randn(numel, generator=torch.Generator().manual_seed(numel))


def payload_of(compressor: Compressor, numel: int) -> Payload:
    return compressor.compress(vector(numel), Key(1), Segments.whole(numel))


def num_bits(payload: Payload) -> int:
    return 8 * encode(payload).numel()


def sparse_part(payload: Payload) -> Sparse:
    parts = payload.parts if isinstance(payload, Sum) else (payload,)
    (found,) = [part for part in parts if isinstance(part, Sparse)]
    return found


@pytest.mark.parametrize("numel", LENGTHS)
@pytest.mark.parametrize("density", [1 / 32, 0.1, 0.5])
@pytest.mark.parametrize("center", ["zero", "mean"])
def test_a_shared_seed_takes_the_centre_the_seed_and_the_values(center: str, density: float, numel: int) -> None:
    """Konecny and Richtarik, section 4: ``rbar + rs + k r`` a node."""
    formula = (FLOAT if center == "mean" else 0) + SEED + FLOAT * round(density * numel)
    excess = num_bits(payload_of(FixedSize(density=density, center=center), numel)) - formula  # type: ignore[arg-type]
    assert 0 < excess <= FRAME


@pytest.mark.parametrize("numel", LENGTHS)
@pytest.mark.parametrize("density", [1 / 32, 0.1, 0.5])
@pytest.mark.parametrize(
    ("probabilities", "center"), [("uniform", "zero"), ("uniform", "mean"), ("optimal", "optimal")]
)
def test_a_variable_size_takes_no_more_than_either_protocol(
    probabilities: str, center: str, density: float, numel: int
) -> None:
    """``rbar + d + r k`` with a flag an entry, ``rbar + (ceil(log2 d) + r) k`` with an index for each that is kept.

    Which of them is shorter is chosen; and gaps between indices take less than indices. What is left is near the
    entropy of the support.
    """
    payload = payload_of(Bernoulli(density=density, probabilities=probabilities, center=center), numel)  # type: ignore[arg-type]
    kept = sparse_part(payload).indices.numel()
    own = (FLOAT if center != "zero" else 0) + FLOAT * kept
    flags, indices = numel, math.ceil(math.log2(numel)) * kept
    support = num_bits(payload) - own
    assert support <= min(flags, indices) + FRAME
    entropy = (math.lgamma(numel + 1) - math.lgamma(kept + 1) - math.lgamma(numel - kept + 1)) / math.log(2)
    assert entropy < support < 1.05 * entropy + FRAME


def test_the_expected_length_is_that_of_the_probabilities() -> None:
    """``E k = sum p_i``: the mean over 200 keys within five deviations."""
    numel, density, draws = 1000, 0.1, 200
    x, segments = vector(numel), Segments.whole(numel)
    counts = [
        sparse_part(Bernoulli(density=density).compress(x, Key(seed), segments)).indices.numel()
        for seed in range(draws)
    ]
    deviation = math.sqrt(numel * density * (1 - density) / draws)
    assert abs(sum(counts) / draws - density * numel) < 5 * deviation


@pytest.mark.parametrize("numel", LENGTHS)
def test_two_values_take_a_bit_an_entry(numel: int) -> None:
    """Binary quantization: ``2 r + d``."""
    excess = num_bits(payload_of(KLevel(levels=2), numel)) - (2 * FLOAT + numel)
    assert 0 < excess <= FRAME


@pytest.mark.parametrize("num_chunks", [4, 40])
def test_sparse_loco_takes_less_than_its_published_code(num_chunks: int) -> None:
    """12 bits an index in its chunk and 2 a value, and a table of four f32 and a scale; the index takes 7.5 here.

    Indices of 64 in each chunk of 4096 have an entropy of 7.36 bits; 12 are what a fixed width needs.
    """
    numel, kept = 4096 * num_chunks, 64 * num_chunks
    x = vector(numel)
    payload = TopK(k=64, values=Bins(2)).compress(x, Key(0), Segments.uniform(numel, 4096))
    assert isinstance(payload, Sparse)
    assert payload.indices.numel() == kept
    values = 2 * kept + 4 * FLOAT + FLOAT
    indices = num_bits(payload) - values
    entropy = math.log2(math.comb(4096, 64)) / 64
    assert indices < 12 * kept
    # The frame, and what a code of gaps that knows no chunks loses.
    assert entropy * kept < indices < (entropy + 0.3) * kept + FRAME
