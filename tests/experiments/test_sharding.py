from collections import Counter
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.errors import ConfigError
from thinwire.experiments.sharding import Batches, make_shards, permutation
from thinwire.random import Key

KEY = Key(3)


@given(labels=st.lists(st.integers(-3, 3), min_size=1, max_size=60), data=st.data())
@settings(deadline=None, max_examples=60)
def test_shards_are_a_partition_of_almost_equal_sizes(labels: list[int], data: st.DataObject) -> None:
    num_workers = data.draw(st.integers(1, len(labels)))
    how: Literal["random", "sorted"] = data.draw(st.sampled_from(["random", "sorted"]))
    shards = make_shards(torch.tensor(labels), num_workers, how, KEY)
    sizes = [len(shard) for shard in shards]
    assert len(shards) == num_workers
    assert max(sizes) - min(sizes) <= 1
    assert all(shard.dtype == torch.int64 for shard in shards)
    assert sorted(torch.cat(shards).tolist()) == list(range(len(labels)))
    if how == "sorted":
        # Python's sort is stable, so it tells the order within a label as well.
        assert torch.cat(shards).tolist() == sorted(range(len(labels)), key=lambda i: labels[i])


def test_random_shards_depend_on_the_key_alone() -> None:
    labels = torch.zeros(1000, dtype=torch.int64)
    state = torch.get_rng_state()
    first, again, other = (torch.cat(make_shards(labels, 7, "random", key)) for key in (KEY, KEY, Key(4)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_shards_own_their_storage() -> None:
    shards = make_shards(torch.arange(100), 10, "sorted", KEY)
    assert all(shard.untyped_storage().nbytes() == 80 for shard in shards)


@pytest.mark.parametrize("num_workers", [0, -1, 4])
@pytest.mark.parametrize("how", ["random", "sorted"])
def test_too_few_examples(num_workers: int, how: Literal["random", "sorted"]) -> None:
    with pytest.raises(ConfigError, match=f"3 examples .* {num_workers} workers"):
        make_shards(torch.arange(3), num_workers, how, KEY)


def test_unknown_sharding() -> None:
    with pytest.raises(ConfigError, match="'skewed'"):
        make_shards(torch.arange(3), 2, "skewed", KEY)


@given(count=st.integers(1, 12), batch_size=st.integers(1, 40), num_steps=st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_every_epoch_covers_the_shard_once(count: int, batch_size: int, num_steps: int) -> None:
    shard = torch.arange(count) * 10
    batches = Batches(shard, batch_size, KEY)
    pieces = [batches.indices(step) for step in range(num_steps)]
    assert all(piece.shape == (batch_size,) and piece.dtype == torch.int64 for piece in pieces)
    row = torch.cat(pieces).tolist()
    for start in range(0, len(row) - count + 1, count):
        assert sorted(row[start : start + count]) == shard.tolist()
    # The unfinished last pass has no example twice either.
    assert max(Counter(row[len(row) // count * count :]).values(), default=1) == 1


@given(steps=st.lists(st.integers(0, 10**9), min_size=1, max_size=12), batch_size=st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_a_batch_is_a_function_of_the_step(steps: list[int], batch_size: int) -> None:
    shard = torch.tensor([5, 3, 8, 1, 9, 2, 7])
    used = Batches(shard, batch_size, KEY)
    for step in [*steps, *reversed(steps)]:
        assert torch.equal(used.indices(step), Batches(shard, batch_size, KEY).indices(step))


def test_a_caller_may_write_into_a_batch() -> None:
    batches = Batches(torch.arange(10), 5, KEY)
    before = batches.indices(0).clone()
    batches.indices(0).zero_()
    assert torch.equal(batches.indices(0), before)


def test_passes_are_reshuffled_and_keys_matter() -> None:
    batches = Batches(torch.arange(50), 50, KEY)
    state = torch.get_rng_state()
    assert not torch.equal(batches.indices(0), batches.indices(1))
    assert not torch.equal(batches.indices(0), Batches(torch.arange(50), 50, Key(4)).indices(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_order_is_addressed_by_the_epoch() -> None:
    shard = torch.arange(30) + 100
    expected = shard[permutation(30, KEY.fold("epoch", 2))]
    assert torch.equal(Batches(shard, 30, KEY).indices(2), expected)


def test_what_batches_refuses() -> None:
    with pytest.raises(ConfigError, match=r"shape \(0,\)"):
        Batches(torch.arange(0), 1, KEY)
    with pytest.raises(ConfigError, match="batch size is 0"):
        Batches(torch.arange(3), 0, KEY)
    with pytest.raises(ConfigError, match="step is -1"):
        Batches(torch.arange(3), 1, KEY).indices(-1)


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=80), data=st.data())
@settings(deadline=None, max_examples=60)
def test_dirichlet_shards_are_a_partition_of_almost_equal_sizes(labels: list[int], data: st.DataObject) -> None:
    num_workers = data.draw(st.integers(1, len(labels)))
    alpha = data.draw(st.sampled_from([0.001, 0.1, 1.0, 100.0]))
    shards = make_shards(torch.tensor(labels), num_workers, f"dirichlet:alpha={alpha}", KEY)
    sizes = [len(shard) for shard in shards]
    assert sizes == [len(part) for part in torch.tensor_split(torch.arange(len(labels)), num_workers)]
    assert sorted(torch.cat(shards).tolist()) == list(range(len(labels)))


def test_dirichlet_shards_are_the_less_mixed_the_less_alpha_is() -> None:
    """The mean share of a worker's most frequent label: of ten, all of it with a small alpha, a tenth with a large."""
    labels = torch.arange(20_000) % 10

    def most_frequent(alpha: float) -> float:
        # Of the first half of the workers, for whom no label has run out.
        shards = make_shards(labels, 100, f"dirichlet:alpha={alpha}", KEY)[:50]
        return sum(float(torch.bincount(labels[shard]).max()) / len(shard) for shard in shards) / 50

    found = [most_frequent(alpha) for alpha in (0.01, 0.1, 1.0, 10.0, 1e6)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.95
    assert found[-1] < 0.16  # 200 draws of ten alike


def test_dirichlet_shares_have_the_variance_of_their_distribution() -> None:
    """The variance of a label's share is that of Dirichlet(alpha p) and of drawing so many examples by it."""
    labels = (torch.arange(400_000) % 4 == 0).long()  # a quarter is 1
    shards = make_shards(labels, 4_000, "dirichlet:alpha=3", KEY)[:2_000]
    shares = torch.stack([labels[shard].double().mean() for shard in shards])
    of_distribution = 0.25 * 0.75 / (3 + 1)
    assert abs(float(shares.mean()) - 0.25) < 5 * (0.047 / 2_000) ** 0.5
    of_drawing = (0.25 * 0.75 - of_distribution) / 100
    assert float(shares.var()) == pytest.approx(of_distribution + of_drawing, rel=0.1)


def test_dirichlet_shards_depend_on_the_key_alone() -> None:
    labels = torch.arange(1000) % 7
    one, again, other = (make_shards(labels, 7, "dirichlet:alpha=1", key) for key in (KEY, KEY, Key(4)))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(torch.cat(one), torch.cat(other))
