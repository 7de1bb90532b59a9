"""Replicas of a sharded model: what is not finite, what is conserved, what is refused, and other meshes."""

import functools
from pathlib import Path
from typing import Any

import fsdp_law_mains as mains
import pytest
import torch

from thinwire.experiments.launch import launch

SIZE = 4


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fsdp-laws")
    launch(SIZE, functools.partial(mains.all_laws, str(folder)))
    return [torch.load(Path(folder, f"rank-{rank}.pt"), weights_only=True) for rank in range(SIZE)]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_what_is_not_finite_in_one_shard_stops_all_and_no_memory_takes_it(found: list[dict[str, Any]]) -> None:
    for rank, each in enumerate(found):
        said, states = each["poisoned"]["said"], each["poisoned"]["states"]
        where = "'0.weight'" if rank % 2 == 0 else "another process's shard"
        assert f"NaN or inf in the gradient of at least one replica, in {where}, found at step 3" in said
        assert [state["num_steps"] for state in states] == [1, 2, 2, 3]
        assert same(states[1]["memory"], states[2]["memory"])
        assert not same(states[2]["memory"], states[3]["memory"])
    for shard in range(2):
        assert same(found[shard]["poisoned"]["model"], found[shard + 2]["poisoned"]["model"])


def test_a_memory_is_in_units_of_the_unscaled_gradient(found: list[dict[str, Any]]) -> None:
    for each in found:
        with_scale, without = each["scaled"]
        assert same(with_scale, without)


def test_what_is_applied_and_what_is_remembered_are_the_gradients(found: list[dict[str, Any]]) -> None:
    """``applied + mean residual = sum of mean gradients``, over exchanges that add up in ``.grad``."""
    for shard in range(2):
        first, second = (found[shard + 2 * replica]["conserved"] for replica in range(2))
        assert first["num_steps"] == 5
        for name, applied in first["applied"].items():
            if not applied.numel():
                continue  # this process has nothing of it
            owed = (first["memory"][f"memory.residual.{name}"] + second["memory"][f"memory.residual.{name}"]) / 2
            assert torch.allclose(applied + owed, first["own"][name], rtol=0, atol=1e-6), name
        assert not same(first["own"], first["applied"])


def test_replicas_that_are_tensor_parallel_inside(found: list[dict[str, Any]]) -> None:
    for rank, each in enumerate(found):
        kinds = each["tensor parallel"]
        assert same(kinds["None"], kinds["sgd"])
        for method, params in kinds.items():
            assert same(params, found[(rank + 2) % 4]["tensor parallel"][method])
            # All processes of a replica hold all of this one.
            assert torch.equal(params["3.weight"], found[rank ^ 1]["tensor parallel"][method]["3.weight"])
        assert not same(kinds["sgd"], kinds["topk:density=10%"])


def test_a_guard_finds_a_shard_that_has_come_apart(found: list[dict[str, Any]]) -> None:
    said = [each["guarded"] for each in found]
    assert all("'2.weight' of process 1 is not that of process 0" in each for each in said)


def test_the_mean_of_gradients_that_were_reduced_in_bf16_is_not_rounded_to_it(found: list[dict[str, Any]]) -> None:
    for each in found:
        own, ours = each["one bf16 step"]["own"], each["one bf16 step"]["ours"]
        assert all(torch.equal(own[name], ours[name].bfloat16().float()) for name in own)


def test_one_replica_sends_nothing(found: list[dict[str, Any]]) -> None:
    assert [each["no replicas"] for each in found] == [0] * SIZE


REFUSED = {
    "plain": "Sequential is not sharded by FSDP2; shard it within islands",
    "optimizer": "a SGD was given as the model",
    "hybrid": "over which FSDP2 itself averages its gradient, in full: shard it within islands",
    "hybrid, whole mesh": "so that 0 are left to hold replicas",
    "shards": "which hold different parts of it",
    "no mesh": 'a str was given as mesh; give one dimension of a device mesh, such as mesh["replicate"]',
    "local steps": "averages models after local steps",
    "consensus": "each worker has a mean of its own",
    "server": "needs a process that is a server",
    "clip": "clip_norm",
    "no method": "method = 3 was given",
    "ignored": "parameter '0.weight' is trained and not sharded",
    "partial": "what is partial is a summand",
    "hooked": "has a post-accumulate-grad hook",
    "frozen": "there is nothing to exchange",
    "second": "compressed already",
    "reentrant": "use_reentrant=False",
    "outside": "outside of a backward pass",
    "closed": "this handle is closed",
    "disagreeing": "method",
    "unlike": "replicas have gradients of different parameters (bias, weight on some only)",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused(name: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        assert REFUSED[name] in each["refused"][name]
