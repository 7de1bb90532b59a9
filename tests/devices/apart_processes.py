"""Processes with models on a device, under the hook of DDP and by synchronize, beside the same on the CPU."""

import functools
from pathlib import Path
from typing import Any

import device_mains as mains
import pytest
import torch

from thinwire.experiments.launch import launch

SIZE = 2
ONE_WAIT = ("sgd", "bf16-sgd", "qsgd:bits=4")
"""Methods without an operation that only has a twin that waits."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("devices")
    launch(SIZE, functools.partial(mains.train_all, str(folder)))
    return [torch.load(Path(folder, f"rank-{rank}.pt"), weights_only=True) for rank in range(SIZE)]


@pytest.mark.parametrize(
    "name",
    [*(f"hooked {method}" for method in mains.HOOKED), *(f"synchronized {method}" for method in mains.SYNCHRONIZED)],
)
def test_a_device_has_the_bits_of_the_cpu(found: list[dict[str, Any]], name: str) -> None:
    for rank in range(SIZE):
        plain, pretended, races = found[rank][name]
        assert not races
        assert plain["bytes"] == pretended["bytes"] > 0
        assert all(map(torch.equal, plain["parameters"], pretended["parameters"]))
        assert plain.get("state", {}).keys() == pretended.get("state", {}).keys()
        assert all(torch.equal(plain["state"][each], pretended["state"][each]) for each in plain.get("state", {}))


@pytest.mark.parametrize("method", ONE_WAIT)
def test_a_bucket_is_waited_for_once_on_its_way_out(found: list[dict[str, Any]], method: str) -> None:
    """And once on its way in, to know that the mean is finite; nothing else is waited for in a backward pass."""
    waits = found[0][f"hooked {method}"][1]["waits"]
    num_buckets = waits.count("Event.synchronize")
    assert num_buckets > 1
    assert len(waits) <= 2 * num_buckets
