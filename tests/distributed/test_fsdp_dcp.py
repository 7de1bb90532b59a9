"""Checkpoints of a sharded model's memories: the same bits on the same mesh, and the same debt on another."""

import functools
from pathlib import Path
from typing import Any

import fsdp_dcp_mains as mains
import pytest
import torch
from torch import Tensor

from thinwire.experiments.launch import launch


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fsdp-dcp")
    launch(4, functools.partial(mains.all_meshes, str(folder)))
    return [torch.load(Path(folder, f"rank-{rank}.pt"), weights_only=True) for rank in range(4)]


def owed(everyone: list[dict[str, Any]], num_replicas: int) -> dict[str, Tensor]:
    """The mean of the replicas' memories."""
    replicas = {each["replica"]: each["memory"] for each in everyone}
    assert len(replicas) == num_replicas
    return {name: sum(each[name] for each in replicas.values()) / num_replicas for name in replicas[0]}


@pytest.mark.parametrize("method", mains.METHODS)
def test_the_same_mesh_goes_on_with_the_same_bits(method: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        straight, again = each[method], each[method]["2x2"]
        assert again["num_steps"] == 3
        assert straight["sent"] == again["sent"]
        assert all(torch.equal(straight["end"][name], again["end"][name]) for name in again["end"])


@pytest.mark.parametrize("method", mains.METHODS)
@pytest.mark.parametrize("replicas", [1, 4])
def test_another_mesh_owes_the_model_what_was_owed(replicas: int, method: str, found: list[dict[str, Any]]) -> None:
    before = owed([each[method]["saved"] for each in found], 2)
    mesh = f"{replicas}x{4 // replicas}"
    after = owed([each[method][mesh] for each in found], replicas)
    tolerance = 1e-6 if "bf16" not in method else 1e-2
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert (after[name] - tensor).norm() <= tolerance * tensor.norm(), name
    assert any(tensor.any() for tensor in before.values())
    for each in found:
        saved, loaded = each[method]["saved"]["model"], each[method][mesh]["model"]
        assert all(torch.equal(saved[name], loaded[name]) for name in saved)
        ends = [every[method][mesh]["end"] for every in (found[0], each)]
        assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_what_does_not_fit_is_refused(found: list[dict[str, Any]]) -> None:
    for each in found:
        method, mesh, none, other, low = each["refused"]
        assert method.startswith("the saved state is of method")
        assert mesh.startswith("a mesh of shape (2,) was given")
        assert "is no checkpoint of torch.distributed.checkpoint" in none
        assert other.startswith("the checkpoint has nothing of compress_fsdp, only epoch")
        assert "has no meaning for another number of workers" in low
