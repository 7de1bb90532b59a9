"""Islands that average or shard within themselves, and exchange compressed messages between each other."""

import functools
from typing import Any

import island_mains as mains
import pytest
import torch

from thinwire.experiments.launch import launch

SIZE = 4


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("islands")
    launch(SIZE, functools.partial(mains.train_all, str(folder)))
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(SIZE)]


@pytest.mark.parametrize("method", mains.METHODS)
@pytest.mark.parametrize("kind", mains.KINDS)
def test_all_processes_have_the_same_shared_model(kind: str, method: str, found: list[dict[str, Any]]) -> None:
    first, *others = (each[f"{kind} {method}"]["params"] for each in found)
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("kind", mains.KINDS)
def test_without_compression_it_is_data_parallel_training_of_all_four(kind: str, found: list[dict[str, Any]]) -> None:
    model = mains.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5)
    for step in range(mains.STEPS):
        optimizer.zero_grad()
        losses = (mains.loss_of(model, step, place) for place in range(SIZE))
        (sum(losses, start=torch.zeros(())) / SIZE).backward()
        optimizer.step()
    for name, param in model.named_parameters():
        assert torch.allclose(found[0][f"{kind} sgd"]["params"][name], param.detach(), rtol=1e-5, atol=1e-6)


def test_of_a_sharded_model_each_process_sends_its_shard(found: list[dict[str, Any]]) -> None:
    numel = sum(param.numel() for param in mains.network().parameters())
    shards = [each["fsdp sgd"]["numel"] for each in found]
    assert shards[0] + shards[1] == shards[2] + shards[3] == numel
    for each in found:
        assert each["fsdp sgd"]["message_bytes"] == 4 * each["fsdp sgd"]["numel"] * mains.STEPS
        assert each["ddp sgd"]["message_bytes"] == 4 * numel * mains.STEPS
        assert each["fsdp signtopk:density=10%,every=3"]["message_bytes"] < 4 * shards[0]


@pytest.mark.parametrize("kind", mains.KINDS)
def test_islands_save_together_and_go_on_with_the_same_bits(kind: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        whole, cut = each["resumed"][kind]
        assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_several_dimensions_and_norms_of_shards_are_refused(found: list[dict[str, Any]]) -> None:
    for each in found:
        dimensions, norm = each["refused"]
        assert dimensions.startswith("a mesh of 2 dimensions ('replicate', 'shard') was given as group")
        assert "clip_norm" in norm
        assert "shard" in norm
