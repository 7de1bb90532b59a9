"""Sharded models on a device, between replicas and between shards, beside the same on the CPU."""

import functools
from pathlib import Path
from typing import Any

import pytest
import shard_mains as mains
import torch
from place import IS_CUDA

from thinwire.experiments.launch import launch

pytestmark = pytest.mark.skipif(
    IS_CUDA, reason="FSDP2's own collectives need NCCL there, which takes a GPU for each process"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("shards")
    launch(2, functools.partial(mains.train_all, str(folder)))
    return [torch.load(Path(folder, f"rank-{rank}.pt"), weights_only=True) for rank in range(2)]


@pytest.mark.parametrize(
    "name", [*(f"replicas {method}" for method in mains.REPLICAS), *(f"shards {method}" for method in mains.SHARDS)]
)
def test_a_device_has_the_bits_of_the_cpu(found: list[dict[str, Any]], name: str) -> None:
    for rank in range(2):
        plain, there, races = found[rank][name]
        assert not races
        assert len(plain) == len(there) > 0
        assert all(map(torch.equal, plain, there))


@pytest.mark.parametrize("kind", ["replicas", "shards"])
def test_gradients_were_compressed(found: list[dict[str, Any]], kind: str) -> None:
    """What is compressed differs from what is not."""
    for rank in range(2):
        dense, there = found[rank][f"{kind} sgd"][1], found[rank][f"{kind} qsgd:bits=4"][1]
        assert not all(map(torch.equal, dense, there))
