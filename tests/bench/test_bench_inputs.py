"""Shapes, vectors and entropies against independent formulas."""

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from thinwire.bench.entropy import entropy_bits, log2_binomial, order_zero
from thinwire.bench.families import facts_of
from thinwire.bench.inputs import heavy, make_input, num_vectors
from thinwire.bench.shapes import gpt2_sizes, read_numel, resnet50_sizes, tensor_sizes
from thinwire.compressors import QSGD, Identity, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.experiments.recording import Recording, RecordingPlan, Rows
from thinwire.layout import Layout, Segments
from thinwire.random import Key
from thinwire.wire import encode


@pytest.mark.parametrize(("numel", "count"), [(10, 3), (1000, 10), (1000, 990), (5000, 50), (7, 7), (7, 0), (1, 1)])
def test_supports(numel: int, count: int) -> None:
    assert log2_binomial(numel, count) == pytest.approx(math.log2(math.comb(numel, count)), abs=1e-6)


def entropy_of(symbols: list[int]) -> float:
    counts = Counter(symbols)
    return sum(count / len(symbols) * math.log2(len(symbols) / count) for count in counts.values())


@pytest.mark.parametrize("num_symbols", [1, 2, 5, 300])
@pytest.mark.parametrize("count", [1, 2, 1000])
def test_order_zero(num_symbols: int, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    symbols = (torch.rand(count, generator=generator) ** 3 * num_symbols).to(torch.int32)
    assert order_zero(symbols, num_symbols) == pytest.approx(entropy_of(symbols.tolist()), abs=1e-9)
    assert order_zero(symbols[:0], num_symbols) == 0.0


def test_entropies_of_payloads() -> None:
    numel = 2000
    x, segments = heavy(numel, seed=0).vector(0), Segments.uniform(numel, 512)
    sparse = TopK(k=20, values=Sign()).compress(x, Key(0), Segments.whole(numel))
    support = math.log2(math.comb(numel, 20))
    assert entropy_bits(sparse) == pytest.approx(support + 20)
    levels = QSGD(levels=7, norm="max").compress(x, Key(0), segments)
    assert entropy_bits(levels) == pytest.approx(numel * entropy_of(levels.levels().tolist()))
    signs = Sign().compress(x, Key(0), segments)
    assert entropy_bits(signs) == pytest.approx(numel * entropy_of((x < 0).to(torch.int8).tolist()))
    both = TopK(k=20, values=QSGD(levels=1)).compress(x, Key(0), Segments.whole(numel))
    levels_of_kept = both.values.levels().tolist()  # type: ignore[attr-defined]
    assert entropy_bits(both) == pytest.approx(support + 20 * entropy_of(levels_of_kept))
    assert entropy_bits(Identity().compress(x, Key(0), segments)) is None
    facts = facts_of(sparse)
    assert facts.bits_per_entry == 8 * encode(sparse).numel() / numel
    assert facts.entropy_bits == pytest.approx((support + 20) / numel)
    assert facts.index_bound_bits == pytest.approx(support / 20)
    assert facts.bits_per_index == 8 * (encode(sparse).numel() - encode(sparse.values).numel()) / 20


def test_resnet50() -> None:
    """Block by block from the paper's table: (1x1, 3x3, 1x1) of each width, a projection in the first of a stage."""
    expected = [7 * 7 * 3 * 64, 64, 64]
    for inputs, width, blocks in ((64, 64, 3), (256, 128, 4), (512, 256, 6), (1024, 512, 3)):
        for block in range(blocks):
            first = inputs if block == 0 else 4 * width
            expected += [first * width, width, width, 9 * width**2, width, width, 4 * width**2, 4 * width, 4 * width]
            expected += [first * 4 * width, 4 * width, 4 * width] if block == 0 else []
    expected += [2048 * 1000, 1000]
    assert list(resnet50_sizes()) == expected


def test_gpt2_blocks_are_those_of_a_transformer_layer() -> None:
    layer = nn.TransformerEncoderLayer(768, 12, 3072, device="meta")
    sizes = gpt2_sizes()
    assert len(sizes) == 148
    assert sorted(sizes[2:14]) == sorted(param.numel() for param in layer.parameters())
    assert sizes[:2] == (50257 * 768, 1024 * 768)


@pytest.mark.parametrize("numel", [1000, 1001, 1_000_000, 26_400_000, 60_000_000])
def test_other_lengths_are_exact(numel: int) -> None:
    sizes = tensor_sizes(numel)
    assert sum(sizes) == numel
    assert min(sizes) > 0


def test_lengths_as_they_are_written() -> None:
    texts = ("1M", "25M", "124M", "0.5m", "2k", "1234")
    assert [read_numel(text) for text in texts] == [10**6, 25 * 10**6, 124 * 10**6, 500_000, 2000, 1234]
    assert sum(tensor_sizes(read_numel("25M"))) == 25_557_032
    assert sum(tensor_sizes(read_numel("124M"))) == 124_439_808
    for text in ("", "M", "1G", "-1M", "999", "1e6", "3000M"):
        with pytest.raises(ConfigError):
            read_numel(text)


def test_heavy_vectors() -> None:
    data = heavy(200_000, seed=3)
    again = heavy(200_000, seed=3)
    assert len(data.vectors) == num_vectors(200_000) == 8
    assert all(torch.equal(one, other) for one, other in zip(data.vectors, again.vectors, strict=True))
    assert len({vector.sum().item() for vector in data.vectors}) == 8
    sizes = list(data.tensors.sizes or ())
    parts = [[part for part in vector.split(sizes) if part.numel() > 2000] for vector in data.vectors[:2]]
    # The median magnitude of Student's t with 3 degrees of freedom is 0.7649; a scale is that of its tensor.
    scales = [[part.abs().median().item() / 0.7649 for part in own] for own in parts]
    assert all(0.9 * 10**-4.5 < scale < 1.1 * 10**-2 for scale in scales[0])
    assert max(scales[0]) > 20 * min(scales[0])
    for one, other in zip(*scales, strict=True):
        assert one == pytest.approx(other, rel=0.25)
    # Its tail: P(|t| > 10) is 0.0021 with 3 degrees of freedom, 1.5e-23 with many.
    shares = [float((part.abs() > 10 * scale).float().mean()) for part, scale in zip(parts[0], scales[0], strict=True)]
    assert 0.001 < sum(shares) / len(shares) < 0.004


def recording_of(count: int, numel: int, path: Path) -> Recording:
    vectors = torch.arange(count * numel, dtype=torch.float32).view(count, numel)
    none = Rows(vectors=torch.empty(0, numel), steps=(), ranks=())
    recording = Recording(
        task="tiny", plan=RecordingPlan(method="sgd", workers=1, steps=9, every=1, lr=0.1, batch_size=1),
        layout=Layout(("a", "b"), (torch.Size([numel - 10]), torch.Size([2, 5]))), complete=False, made_by={},
        gradient=Rows(vectors=vectors, steps=tuple(range(count)), ranks=(0,) * count), compressed=none,
    )  # fmt: skip
    recording.save(path)
    return recording


def test_recorded_gradients_are_laid_end_to_end(tmp_path: Path) -> None:
    path = tmp_path / "g.pt"
    recording = recording_of(5, 300, path)
    data = make_input(f"recorded:{path}", 1000)
    rows = recording.gradient.vectors
    assert data.numel == 1000
    assert len(data.vectors) == 5
    for turn, vector in enumerate(data.vectors):
        expected = torch.cat([rows[(4 * turn + place) % 5] for place in range(4)])[:1000]
        assert torch.equal(vector, expected)
    assert list(data.tensors.sizes or ()) == [290, 10] * 3 + [100]
    for part in ("5 gradients of tiny (300 entries each)", "sgd", "4 of them", "more than once", "interrupted"):
        assert part in data.note


def test_a_long_recorded_gradient_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "g.pt"
    recording = recording_of(2, 3000, path)
    data = make_input(f"recorded:{path}", 1000)
    assert [torch.equal(v, row[:1000]) for v, row in zip(data.vectors, recording.gradient.vectors, strict=True)] == [
        True,
        True,
    ]
    assert data.tensors.sizes == (1000,)
    assert "more than once" not in data.note


def test_a_recording_without_gradients_is_refused(tmp_path: Path) -> None:
    recording_of(0, 300, tmp_path / "g.pt")
    with pytest.raises(ConfigError, match="holds no gradients"):
        make_input(f"recorded:{tmp_path / 'g.pt'}", 1000)
