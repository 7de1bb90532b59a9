"""Means of gathered messages: over all workers, over contributors, clipped to the median norm."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from thinwire.compressors import Compressor, Identity, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import Aggregate, Context, Gather
from thinwire.layout import Layout, Segments
from thinwire.memory import Handed, MemorySender
from thinwire.payloads import Sparse
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.wire import max_num_bytes

LAYOUT = Layout(("a", "b", "c"), (torch.Size([5, 4]), torch.Size([0]), torch.Size([10])))


def exchange(vectors: list[Tensor], gather: Gather, compressor: Compressor) -> list[Aggregate]:
    segments = Segments.whole(LAYOUT.numel)
    longest = max_num_bytes(compressor.outline(segments))
    contexts = [Context(rank, len(vectors), Key(0), segments, longest, LAYOUT) for rank in range(len(vectors))]
    programs = [
        gather.run(Handed(x.clone()), MemorySender(compressor), ctx, gather.init(ctx, compressor))
        for x, ctx in zip(vectors, contexts, strict=True)
    ]
    return Simulation(len(vectors)).run(programs)


def vectors(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(30, generator=generator) * (1.0 + rank) for rank in range(count)]


def clipped(sent: Any) -> Any:
    """Each tensor of each worker at most as long as the lower median of all workers' lengths."""
    found = sent.astype(np.float64)
    for start, end in ((0, 20), (20, 30)):
        norms = np.linalg.norm(found[:, start:end], axis=1)
        limit = np.sort(norms)[(len(norms) - 1) // 2]
        found[:, start:end] *= np.minimum(1.0, limit / np.maximum(norms, 1e-300))[:, None]
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("compressor", [TopK(k=4), TopK(k=4, values=Sign()), Identity(), Sign()], ids=str)
@pytest.mark.parametrize("clip", ["none", "median"])
@pytest.mark.parametrize("mean", ["all", "contributors"])
def test_the_mean_is_that_of_its_definition(mean: Any, clip: Any, compressor: Compressor, size: int) -> None:
    given = vectors(size)
    found = exchange(given, Gather(mean=mean, clip=clip), compressor)
    sent = np.stack([each.sent.to_dense().numpy() for each in found])
    total = (clipped(sent) if clip == "median" else sent).sum(axis=0, dtype=np.float64)
    counts = np.maximum((sent != 0).sum(axis=0), 1) if mean == "contributors" else size
    assert all(each.finite and each.num_vectors == size for each in found)
    assert np.allclose(found[0].mean.numpy(), total / counts, rtol=1e-5, atol=1e-6)
    plain = exchange(given, Gather(), compressor)
    assert [each.message_bytes for each in found] == [each.message_bytes for each in plain]
    if size == 1:
        assert torch.equal(found[0].mean, plain[0].mean)


def test_an_entry_that_was_kept_counts_even_if_it_is_zero() -> None:
    kept = torch.zeros(30)
    kept[3] = 6.0
    found = exchange([kept, torch.zeros(30)], Gather(mean="contributors"), TopK(k=30))
    assert float(found[0].mean[3]) == 3.0


@pytest.mark.parametrize("clip", ["none", "median"])
@pytest.mark.parametrize("mean", ["all", "contributors"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_is_not_finite_is_told_to_all(poison: float, mean: Any, clip: Any) -> None:
    given = vectors(3)
    given[1][7] = poison
    found = exchange(given, Gather(mean=mean, clip=clip), Identity())
    assert not any(each.finite for each in found)
    assert not torch.isfinite(found[0].mean[7])


@pytest.mark.parametrize("given", [{"mean": "some"}, {"clip": "mean"}])
def test_an_unknown_mean_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="it takes '"):
        Gather(**given)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_mean_is_sparse_while_an_eighth_is_sent_and_has_the_bits_of_the_dense_sum(size: int, k: int) -> None:
    found = exchange(vectors(size), Gather(), TopK(k=k))
    is_sparse = 8 * k * size <= LAYOUT.numel
    total = np.zeros(LAYOUT.numel, np.float32)
    for each in found:
        total += each.sent.to_dense().numpy()
    mean = total / np.float32(size)
    for each in found:
        assert isinstance(each.result, Sparse) == is_sparse
        assert each.mean.numpy().tobytes() == mean.tobytes()
        assert each.num_nonzero() == np.count_nonzero(mean)
        for scale in (1.0, -1.0, 0.3):
            out = torch.linspace(-1.0, 1.0, LAYOUT.numel)
            expected = out.numpy() + np.float32(scale) * mean
            each.add_to(out, scale)
            assert out.numpy().tobytes() == expected.tobytes()
