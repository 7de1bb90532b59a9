"""A hook of DDP: whatever its buckets are, the bits are those of the simulated method, tensor by tensor."""

import dataclasses
import functools
import warnings
from pathlib import Path
from typing import Any

import hook_mains as mains
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed.buckets import BucketChannels
from thinwire.distributed.comm_hook import on_gradients
from thinwire.errors import ConfigError
from thinwire.experiments.launch import launch
from thinwire.experiments.training import one_torch_thread
from thinwire.layout import PerTensor
from thinwire.methods import parse_method
from thinwire.random import Key
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
    method = dataclasses.replace(on_gradients(parse_method(setting.method)), granularity=PerTensor())
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


# These draw numbers by the bucket, or cut it among owners.
BY_BUCKET = (
    "powersgd:rank=1", "qsgd:bits=4", "1bit-sgd",
    "signtopk:density=10%,residual_dtype=bf16", "dgc:density=5%,residual_dtype=bf16",
)  # fmt: skip
# What is sent in full, or rounded to 16 bits, is another product than the simulated one.
EXACT = [
    number
    for number, setting in enumerate(mains.SETTINGS)
    if setting.policy == mains.NOTHING_DENSE and not setting.bf16 and setting.method not in BY_BUCKET
]


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


@pytest.mark.parametrize("method", BY_BUCKET)
def test_a_restart_changes_no_bit(method: str, found: list[list[dict[str, Any]]]) -> None:
    whole, cut = (number for number in NUMBERS if mains.SETTINGS[number].method == method)
    assert mains.SETTINGS[cut] == dataclasses.replace(mains.SETTINGS[whole], cut=True)
    for own in found:
        states = [[own[n]["model"], *(each["tensors"] for each in own[n]["memories"])] for n in (whole, cut)]
        for one, other in zip(*states, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_warm_start_is_known_by_parameters(found: list[list[dict[str, Any]]]) -> None:
    (number, _) = (n for n in NUMBERS if mains.SETTINGS[n].method == "powersgd:rank=1")
    for each in found[0][number]["memories"]:
        kept = {name for name in each["tensors"] if name.startswith("exchange.")}
        assert kept == {f"exchange.directions.{layer}.weight" for layer in range(0, 11, 2)}


def buckets_of(method: str, rank: int = 1, size: int = 2) -> tuple[BucketChannels, dict[str, Tensor]]:
    named = {name: param.detach() for name, param in mains.network().named_parameters()}
    product = on_gradients(parse_method(method))
    return BucketChannels(product, list(named), frozenset(), Key(0), rank, size, clock=None), named


def halves(named: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    names = list(named)
    return [{name: named[name] for name in part} for part in (names[6:], names[:6])]


@pytest.mark.parametrize("method", ["1bit-sgd", "powersgd:rank=1", "topk:density=5%", "ok-topk:density=5%"])
def test_after_a_restart_a_bucket_is_cut_as_before(method: str) -> None:
    before, named = buckets_of(method)
    old = [channel for half in halves(named) for channel in before.of(half)]
    for channel in old:
        for state in (channel.memory, channel.exchange):
            for number, tensor in enumerate(state.values()):
                tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape) + number)
    after, _ = buckets_of(method)
    after.load(before.tensors(), before.cuts())
    assert after.cuts() == before.cuts()
    assert after.tensors().keys() == before.tensors().keys()
    new = after.of(named)  # one bucket, as DDP's first
    assert [channel.layout for channel in new] == [channel.layout for channel in old]
    assert [channel.key for channel in new] == [channel.key for channel in old]
    for one, other in zip(new, old, strict=True):
        for mine, theirs in ((one.memory, other.memory), (one.exchange, other.exchange)):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[kind], theirs[kind]) for kind in mine)
    assert [after.of(half) for half in halves(named)] == [[channel] for channel in new]


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_of_a_region_and_has_no_place_in_other_buckets_is_lost_aloud(restarted: bool) -> None:
    buckets, named = buckets_of("1bit-sgd")
    (whole,) = buckets.of(named)
    whole.exchange["residual"].fill_(1.0)
    whole.memory["residual"].fill_(2.0)
    if restarted:
        saved = buckets.tensors(), buckets.cuts()
        buckets, _ = buckets_of("1bit-sgd")
        buckets.load(*saved)
    first, second = halves(named)
    for each in (second, first):  # of the two, the second begins with the whole one's first parameter
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            (channel,) = buckets.of(each)
        assert bool((channel.memory["residual"] == 2.0).all())
        assert not channel.exchange["residual"].any()
        assert len(given) == (each is second)
        assert all("(residual) is lost, once" in str(one.message) for one in given)
    assert not any("#" in name and buckets.tensors()[name].any() for name in buckets.tensors())


def test_what_one_process_owned_is_lost_aloud_by_two() -> None:
    one, named = buckets_of("1bit-sgd", rank=0, size=1)
    (whole,) = one.of(named)
    whole.exchange["residual"].fill_(1.0)
    two, _ = buckets_of("1bit-sgd")
    two.load(one.tensors(), one.cuts())
    with pytest.warns(UserWarning, match=r"\(residual\) is lost, once"):
        (channel,) = two.of(named)
    assert not channel.exchange["residual"].any()
    assert all("#" in name for name in two.tensors() if name.startswith("exchange."))


def test_a_step_that_is_not_finite_leaves_every_memory_as_it_was(found: list[list[dict[str, Any]]]) -> None:
    (number,) = (n for n in NUMBERS if mains.SETTINGS[n].poisoned_step is not None)
    poisoned = mains.SETTINGS[number].poisoned_step
    assert poisoned is not None
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
@pytest.mark.filterwarnings("ignore::thinwire.NothingCompressed")
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


@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("ignore::thinwire.NothingCompressed")
@pytest.mark.parametrize("method", ["topk", "sgd"])
def test_the_state_of_another_model_is_refused(method: str) -> None:
    large = thinwire.compress_ddp(wrapped := DistributedDataParallel(mains.network()), method)
    mains.loss_of(wrapped, 0, 0, 0, torch.float32).backward()
    small = thinwire.compress_ddp(DistributedDataParallel(nn.Linear(6, 3)), method)
    with pytest.raises(ConfigError, match=r"another model: this one has no 0\.bias, 0\.weight, 10\.bias"):
        small.load_state_dict(large.state_dict())
    large.close()
    small.close()
