"""A hook of DDP: whatever its buckets are, the bits are those of the simulated method, tensor by tensor."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import hook_mains as mains
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed.comm_hook import _on_gradients
from thinwire.errors import ConfigError
from thinwire.experiments.launch import launch
from thinwire.experiments.session import one_torch_thread
from thinwire.layout import PerTensor
from thinwire.methods import parse_method
from thinwire.simulator import Simulation
from thinwire.worker import Worker

SIZE = 2
NUMBERS = range(len(mains.SETTINGS))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("hook")
    launch(SIZE, functools.partial(mains.train_all, str(folder)))
    return [torch.load(Path(folder, f"rank-{rank}.pt"), weights_only=False) for rank in range(SIZE)]


def simulated(setting: mains.Setting) -> list[Worker]:
    """The method on whole gradients, one tensor at a time; a step that would not be finite is left out."""
    method = dataclasses.replace(_on_gradients(parse_method(setting.method)), granularity=PerTensor())
    models = [mains.network(setting.lonely) for _ in range(SIZE)]
    workers = [
        Worker(method, model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5), rank=rank, size=SIZE, seed=5)
        for rank, model in enumerate(models)
    ]
    simulation = Simulation(SIZE)
    with one_torch_thread():
        for step in range(mains.STEPS):
            if step == setting.poisoned_step:
                continue
            for rank, model in enumerate(models):
                model.zero_grad()
                run = mains.Walk(model) if setting.lonely else model
                for part in range(setting.accumulate):
                    mains.loss_of(run, step, rank, part, torch.float32).backward()
            simulation.run([worker.step() for worker in workers])
    return workers


def named(model: nn.Module) -> dict[str, Tensor]:
    return {name: param.detach() for name, param in model.named_parameters()}


# What is sent in full, or rounded to 16 bits, is another product than the simulated one.
EXACT = [n for n in NUMBERS if mains.SETTINGS[n].policy == mains.NOTHING_DENSE and not mains.SETTINGS[n].bf16]


@pytest.mark.parametrize("number", EXACT, ids=[str(mains.SETTINGS[n]) for n in EXACT])
def test_the_bits_are_those_of_the_simulated_method_whatever_the_buckets(
    number: int, found: list[list[dict[str, Any]]]
) -> None:
    setting = mains.SETTINGS[number]
    workers = simulated(setting)
    for rank, worker in enumerate(workers):
        own = found[rank][number]
        expected = named(worker.model)
        assert own["model"].keys() == expected.keys()
        assert all(torch.equal(own["model"][name], expected[name]) for name in expected)
        tensors = worker.state_dict()["tensors"]
        # A parameter that DDP never hands over has no memory in the hook, and one of zeros in the worker.
        last = {name.replace(".model.", "."): each for name, each in own["memories"][-1]["tensors"].items()}
        assert all(
            torch.equal(last[name], tensors[name]) if name in last else not tensors[name].any() for name in tensors
        )
        assert (setting.method == "sgd") == (not last)


def test_a_step_that_is_not_finite_leaves_every_memory_as_it_was(found: list[list[dict[str, Any]]]) -> None:
    (number,) = (n for n in NUMBERS if mains.SETTINGS[n].poisoned_step is not None)
    poisoned = mains.SETTINGS[number].poisoned_step
    for rank in range(SIZE):
        memories = found[rank][number]["memories"]
        assert [memory["finite"] for memory in memories] == [step != poisoned for step in range(mains.STEPS)]
        before, after = memories[poisoned - 1], memories[poisoned]
        assert after["num_steps"] == before["num_steps"] == poisoned
        assert before["tensors"].keys() == after["tensors"].keys()
        assert all(torch.equal(before["tensors"][name], after["tensors"][name]) for name in before["tensors"])


def test_what_the_policy_names_is_sent_in_full(found: list[list[dict[str, Any]]]) -> None:
    (number,) = (n for n in NUMBERS if mains.SETTINGS[n].policy.patterns)
    for rank in range(SIZE):
        tensors = found[rank][number]["memories"][-1]["tensors"]
        full = [name for name in tensors if name.endswith("bias") or ".2." in name]
        assert len(full) == 7
        assert all(bool(tensors[name].any()) == (name not in full) for name in tensors)
    ranks = [found[rank][number]["model"] for rank in range(SIZE)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])


def test_gradients_of_16_bits_have_a_memory_of_32(found: list[list[dict[str, Any]]]) -> None:
    (number,) = (n for n in NUMBERS if mains.SETTINGS[n].bf16)
    first, second = (found[rank][number] for rank in range(SIZE))
    assert all(torch.equal(first["model"][name], second["model"][name]) for name in first["model"])
    assert all(param.dtype == torch.bfloat16 for param in first["model"].values())
    tensors = first["memories"][-1]["tensors"]
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert any(bool((tensor.bfloat16().float() != tensor).any()) for tensor in tensors.values())


def test_bytes_are_those_of_the_messages(found: list[list[dict[str, Any]]]) -> None:
    for number in NUMBERS:
        if "server" in mains.SETTINGS[number].method or mains.SETTINGS[number].method == "sgd":
            continue
        for rank in range(SIZE):
            message, sent, received = found[rank][number]["counts"]
            other = found[1 - rank][number]["counts"]
            assert message <= sent
            assert sent == other[2]
            assert received == other[1]


@pytest.mark.usefixtures("alone")
def test_what_a_hook_cannot_do_is_refused() -> None:
    for method, message in (
        ("signtopk:every=8", "averages models after local steps"),
        ("diloco", "averages models after local steps"),
        ("dgc:clip=1", "a hook sees neither the norm"),
    ):
        with pytest.raises(ConfigError, match=message):
            thinwire.compress_ddp(DistributedDataParallel(mains.network()), method)
    policy = thinwire.DensePolicy(patterns=("nothing.*",))
    with pytest.raises(ConfigError, match=r"fits no parameter of the model; its first are 0\.weight"):
        thinwire.compress_ddp(DistributedDataParallel(mains.network()), "topk", policy=policy)
    hook = thinwire.compress_ddp(DistributedDataParallel(mains.network()), "topk")
    other = thinwire.compress_ddp(DistributedDataParallel(mains.network()), "topk:density=2%")
    with pytest.raises(ConfigError, match="the saved state is of method"):
        other.load_state_dict(hook.state_dict())
    hook.close()
    other.close()
