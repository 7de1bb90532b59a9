"""What is followed has the bits of what was published, whatever they are."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import thinwire
from thinwire.errors import ConfigError
from thinwire.stores import FolderStore
from thinwire.weights import MemoryStore, layout

DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(x: Tensor) -> Tensor:
    return x.detach().contiguous().view(INTEGERS[x.dtype.itemsize])


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(bits(one[name]), bits(other[name])) for name in one)


def any_bits(numel: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Every pattern is as likely as any other: NaN with payloads, infinities and denormals among them."""
    whole = torch.randint(0, 256, (numel * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    return whole.view(dtype)


@DTYPES
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("numel", [0, 1, 63, 64, 65, 5000])
def test_any_bits_arrive(numel: int, share: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(numel)
    trained = {"a": any_bits(numel, dtype, generator), "b": any_bits(7, dtype, generator)}
    served = {name: torch.zeros_like(each) for name, each in trained.items()}
    store = MemoryStore()
    publisher = thinwire.sync_weights(trained, to=store)
    follower = thinwire.sync_weights(served, of=store)
    last: dict[str, Tensor] = {}
    for step in range(1, 4):
        before = {name: each.clone() for name, each in trained.items()}
        written, told = publisher.publish(), follower.follow()
        assert same(trained, served)
        assert (written.step, told.step, follower.step) == (step, step, step)
        assert (told.snapshot, told.num_updates) == ((1, 0) if step == 1 else (None, 1))
        if step > 1:
            new = {name for name in trained if not torch.equal(bits(last[name]), bits(before[name]))}
            assert set(told.changed) == new
            assert told.num_changed == written.num_changed
            assert told.num_bytes == written.num_bytes
        last = before
        replaced = torch.rand(numel, generator=generator) < share
        bits(trained["a"])[replaced] = bits(any_bits(numel, dtype, generator))[replaced]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_tensors_arrive(data: st.DataObject) -> None:
    dtypes = [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    trained = {}
    for number in range(data.draw(st.integers(0, 5))):
        dtype = data.draw(st.sampled_from(dtypes))
        shape = data.draw(st.lists(st.integers(0, 5), max_size=3))
        whole = any_bits(math.prod(shape), torch.uint8 if dtype == torch.bool else dtype, generator)
        trained[f"t{number}"] = (whole > 99 if dtype == torch.bool else whole).view(shape)
    served = {name: torch.zeros_like(each) for name, each in trained.items()}
    store = MemoryStore()
    publisher = thinwire.sync_weights(trained, to=store, snapshot_every=data.draw(st.integers(0, 2)))
    follower = thinwire.sync_weights(served, of=store)
    for _ in range(data.draw(st.integers(1, 5))):
        publisher.publish()
        if data.draw(st.booleans()):
            follower.follow()
            assert same(trained, served)
        for each in trained.values():
            if each.numel() and data.draw(st.booleans()):
                flat = each.view(-1)
                flat[data.draw(st.integers(0, each.numel() - 1))] = flat[0] + 1
    publisher.publish()
    follower.follow()
    assert same(trained, served)


@DTYPES
def test_blocks_that_cross_tensors_arrive(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of many blocks and several parts, in little."""
    monkeypatch.setattr(layout, "BLOCK", 100)
    monkeypatch.setattr("thinwire.weights.parts._ENOUGH", 500)
    generator = torch.Generator().manual_seed(4)
    trained = {str(numel): any_bits(numel, dtype, generator) for numel in (99, 0, 1, 301, 7, 1000)}
    served = {name: torch.zeros_like(each) for name, each in trained.items()}
    store = MemoryStore()
    publisher = thinwire.sync_weights(trained, to=store)
    follower = thinwire.sync_weights(served, of=store)
    for share in (0.0, 0.02, 1.0):
        publisher.publish()
        follower.follow()
        assert same(trained, served)
        for each in trained.values():
            replaced = torch.rand(each.shape, generator=generator) < share
            bits(each)[replaced] = bits(any_bits(each.numel(), dtype, generator))[replaced]
    publisher.publish()
    assert any("part-00001" in name for name in store.names("weights/updates/000000000004"))
    told = follower.follow()
    assert same(trained, served)
    assert set(told.changed) <= trained.keys()


def test_an_unchanged_model_takes_some_bytes() -> None:
    trained = {"w": torch.randn(100_000).bfloat16()}
    publisher = thinwire.sync_weights(trained, to=MemoryStore())
    publisher.publish()
    report = publisher.publish()
    assert report.num_changed == 0
    assert report.num_bytes < 120


def test_dense_changes_and_snapshots_take_less_than_the_weights() -> None:
    generator = torch.Generator().manual_seed(5)
    trained = {"w": torch.randn(100_000, generator=generator).bfloat16()}
    publisher = thinwire.sync_weights(trained, to=MemoryStore())
    assert publisher.publish().num_bytes < 0.75 * 200_000  # their exponents are few
    trained["w"].copy_(torch.randn(100_000, generator=generator))
    assert publisher.publish().num_bytes < 0.75 * 200_000
    # Numbers with nothing to gain cost what they are.
    noise = {"w": any_bits(100_000, torch.bfloat16, generator)}
    assert thinwire.sync_weights(noise, to=MemoryStore()).publish().num_bytes < 200_000 + 300


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.scores = nn.Linear(4, 10, bias=False)
        self.scores.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(4)


def test_models_with_buffers_and_tied_weights_arrive(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = FolderStore(tmp_path_factory.mktemp("store"))
    trained, served = Tied(), Tied()
    publisher = thinwire.sync_weights(trained, to=store)
    follower = thinwire.sync_weights(served, of=store)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    for _ in range(3):
        publisher.publish()
        follower.follow()
        assert same(dict(trained.state_dict()), dict(served.state_dict()))
        optimizer.zero_grad()
        trained.scores(trained.norm(trained.embedding(torch.arange(10)))).square().sum().backward()
        optimizer.step()
    publisher.publish()
    changed = follower.follow().changed
    assert changed == (
        "embedding.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
        "norm.num_batches_tracked",
    )  # fmt: skip


def test_tensors_that_are_not_contiguous_arrive() -> None:
    trained = {"t": torch.randn(4, 6).T, "s": torch.randn(10)[::2]}
    served = {"t": torch.zeros(6, 4), "s": torch.zeros(10)[::2]}
    store = MemoryStore()
    publisher = thinwire.sync_weights(trained, to=store)
    follower = thinwire.sync_weights(served, of=store)
    for _ in range(2):
        publisher.publish()
        follower.follow()
        assert same(trained, served)
        trained["t"][1, 2] += 1
        trained["s"][3] += 1


def test_two_followers_at_their_own_pace_have_the_same_weights() -> None:
    generator = torch.Generator().manual_seed(6)
    trained = {"w": torch.randn(500, generator=generator)}
    one, other = ({"w": torch.zeros(500)} for _ in range(2))
    store = MemoryStore()
    publisher = thinwire.sync_weights(trained, to=store, snapshot_every=4)
    first, second = thinwire.sync_weights(one, of=store), thinwire.sync_weights(other, of=store)
    updates = 0
    for step in range(10):
        trained["w"][step] += 1
        publisher.publish()
        first.follow()
        assert same(trained, one)
        if step % 3 == 0:
            updates += second.follow().num_updates
            assert same(trained, other)
    assert updates == 9
    first.check()


@pytest.mark.usefixtures("alone")
def test_what_cannot_be_published_is_refused() -> None:
    from torch.distributed.tensor import distribute_tensor, init_device_mesh

    store = MemoryStore()
    sharded = distribute_tensor(torch.zeros(4), init_device_mesh("cpu", (1,)))
    for wrong in (sharded, torch.zeros(2, device="meta"), torch.zeros(2, 2).to_sparse(), 5):
        with pytest.raises(ConfigError, match="plain dense tensor"):
            thinwire.sync_weights({"w": wrong}, to=store)  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="one store"):
        thinwire.sync_weights({}, to=store, of=store)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="at least 0 and 1"):
        thinwire.sync_weights({}, to=store, keep_snapshots=0)
    with pytest.raises(ConfigError, match="object name"):
        thinwire.sync_weights({}, of=store, name="../up")
