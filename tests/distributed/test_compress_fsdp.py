"""Replicas of a sharded model: the bits are FSDP2's own without compression, and the simulated method's with it."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import fsdp_mains as mains
import pytest
import torch
from torch import Tensor, nn

from thinwire.distributed.comm_hook import on_gradients
from thinwire.experiments.launch import launch
from thinwire.experiments.training import one_torch_thread
from thinwire.layout import PerTensor
from thinwire.methods import parse_method
from thinwire.simulator import Simulation
from thinwire.worker import Worker

REPLICAS, SHARDS = 2, 2
SIZE = REPLICAS * SHARDS


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fsdp")
    launch(SIZE, functools.partial(mains.train_all, str(folder)))
    return [torch.load(Path(folder, f"rank-{rank}.pt"), weights_only=True) for rank in range(SIZE)]


@pytest.mark.parametrize("name", mains.EQUAL)
def test_without_compression_it_has_the_bits_of_hybrid_sharding(name: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        ours, own = each[name]["model"], each[f"own {name}"]["model"]
        assert ours.keys() == own.keys()
        assert all(torch.equal(ours[key], own[key]) for key in own)


@pytest.mark.parametrize("name", [*mains.EQUAL, *mains.SIMULATED])
def test_replicas_of_a_shard_are_equal(name: str, found: list[dict[str, Any]]) -> None:
    for shard in range(SHARDS):
        first, second = (found[replica * SHARDS + shard][name]["model"] for replica in range(REPLICAS))
        assert all(torch.equal(first[key], second[key]) for key in first)


# These draw numbers by the layer, or cut it among owners, or keep of it something as a whole.
EXACT = ("topk", "signtopk", "server", "dgc", "cut", "skipped")


@pytest.mark.parametrize("name", EXACT)
def test_the_bits_are_those_of_the_simulated_method_on_shards(name: str, found: list[dict[str, Any]]) -> None:
    workers = simulated(mains.SIMULATED[name])
    for rank in range(SIZE):
        replica, shard = divmod(rank, SHARDS)
        model = dict(workers[shard][replica].model.named_parameters())
        mine = found[rank][name]["model"]
        for key, param in mine.items():
            assert torch.equal(param, model[key.replace(".", "_")].detach()), key


@pytest.mark.parametrize("name", ["cut", "cut 1bit", "cut qsgd"])
def test_a_saved_state_goes_on_with_the_bits_of_one_that_was_not_interrupted(
    name: str, found: list[dict[str, Any]]
) -> None:
    straight = {"cut": "topk", "cut 1bit": "1bit", "cut qsgd": "qsgd"}[name]
    for each in found:
        assert each[name]["counts"] == each[straight]["counts"]
        assert all(torch.equal(each[name]["model"][key], each[straight]["model"][key]) for key in each[name]["model"])


def test_gradients_that_are_thrown_away_leave_the_memory_as_it_was(found: list[dict[str, Any]]) -> None:
    for each in found:
        before, after = each["skipped"]["memories"][1:3]
        assert after["num_steps"] == before["num_steps"] == 2
        assert before["tensors"].keys() == after["tensors"].keys()
        assert all(torch.equal(before["tensors"][key], after["tensors"][key]) for key in before["tensors"])
        assert any(tensor.any() for tensor in before["tensors"].values())


def test_every_shard_has_a_memory_of_its_own_size(found: list[dict[str, Any]]) -> None:
    for each in found:
        residuals = each["topk"]["memories"][0]["tensors"]
        shapes = {f"memory.residual.{key}": param.shape for key, param in each["topk"]["model"].items()}
        assert {key: tensor.shape for key, tensor in residuals.items() if tensor.numel()} == {
            key: shape for key, shape in shapes.items() if shape.numel()
        }


def simulated(setting: mains.Setting) -> list[list[Worker]]:
    """For each shard a simulation of its replicas, whose gradients are those of the replica's whole model."""
    assert setting.method is not None
    method = dataclasses.replace(on_gradients(parse_method(setting.method)), granularity=PerTensor())
    networks = [mains.network() for _ in range(REPLICAS)]
    workers = [[worker(method, networks[replica], replica, shard) for replica in range(REPLICAS)] for shard in (0, 1)]
    simulations = [Simulation(REPLICAS) for _ in range(SHARDS)]
    with one_torch_thread():
        for step in range(mains.STEPS):
            if step == setting.skipped:
                continue
            grads = [reduced(networks[replica], setting, step, replica) for replica in range(REPLICAS)]
            for shard, simulation in enumerate(simulations):
                for replica, each in enumerate(workers[shard]):
                    for key, param in each.model.named_parameters():
                        param.grad = part_of(grads[replica][key], shard)
                simulation.run([each.step() for each in workers[shard]])
            for replica, model in enumerate(networks):
                parts = [dict(workers[shard][replica].model.named_parameters()) for shard in range(SHARDS)]
                with torch.no_grad():
                    for key, param in model.named_parameters():
                        param.copy_(torch.cat([part[key.replace(".", "_")] for part in parts]))
    return workers


def worker(method: Any, network: nn.Module, replica: int, shard: int) -> Worker:
    model = nn.ParameterDict(
        {key.replace(".", "_"): part_of(param.detach(), shard) for key, param in network.named_parameters()}
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    return Worker(method, model, optimizer, rank=replica, size=REPLICAS, seed=5)


def reduced(model: nn.Sequential, setting: mains.Setting, step: int, replica: int) -> dict[str, Tensor]:
    """The mean gradient of a replica's processes."""
    each = []
    for shard in range(SHARDS):
        model.zero_grad()
        for part in range(setting.accumulate):
            mains.loss_of(mains.runner(model, setting.kind, step), step, replica * SHARDS + shard, part).backward()
        grads = {key: param.grad for key, param in model.named_parameters()}
        each.append({key.replace(".", "_"): grad.clone() for key, grad in grads.items() if grad is not None})
    return {key: (each[0][key] + each[1][key]) / SHARDS for key in each[0]}


def part_of(tensor: Tensor, shard: int) -> Tensor:
    chunks = tensor.chunk(SHARDS)
    return chunks[shard].clone() if shard < len(chunks) else tensor[:0].clone()
