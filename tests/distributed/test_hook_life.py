"""What the hook's memory owes and what has been applied add up to what was given, whatever a script does."""

import copy
from collections.abc import Callable
from typing import Any

import life_mains as mains
import links_mains
import pytest
import torch
from torch import Tensor, nn

import thinwire
from thinwire.distributed.comm_hook import can_overlap
from thinwire.methods import CATALOG, parse_method

SIZE = 2

pytestmark = pytest.mark.filterwarnings("ignore::thinwire.NothingCompressed")


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    outcomes = links_mains.run(tmp_path_factory.mktemp("lives"), mains.live_all, SIZE)
    assert [(each.error, each.text) for each in outcomes] == [("", "")] * SIZE
    return [each.value for each in outcomes]


@pytest.mark.parametrize("number", range(len(mains.LIVES)), ids=map(str, mains.LIVES))
def test_what_is_given_is_applied_or_owed(number: int, lives: list[list[dict[str, Any]]]) -> None:
    for rank in range(SIZE):
        found = lives[rank][number]
        for name, given in found["given"].items():
            assert torch.allclose(found["applied"][name] + found["owed"][name], given, atol=3e-6), name


@pytest.mark.parametrize("number", range(len(mains.LIVES)), ids=map(str, mains.LIVES))
def test_replicas_stay_equal_and_what_is_idle_stays_where_it_is(number: int, lives: list[list[dict[str, Any]]]) -> None:
    one, other = (each[number] for each in lives)
    assert one["sums"] == other["sums"]
    for found in (one, other):
        # Where gradients are views and are never None, what DDP writes to its bucket they have: what is owed is paid.
        views = mains.LIVES[number].gradient_as_bucket_view and not mains.LIVES[number].set_to_none
        assert views or found["moved"] == 0.0
        assert not found["had_gradients"]


def test_steps_that_count_are_counted(lives: list[list[dict[str, Any]]]) -> None:
    for own in lives:
        for life, found in zip(mains.LIVES, own, strict=True):
            assert found["num_steps"] == mains.STEPS - list(life.events.values()).count("skip")


# Over every method that a hook takes.

METHODS = [row.name for row in CATALOG if can_overlap(parse_method(row.name))]


def train(method: str, thrown_away: Callable[[int], bool]) -> tuple[list[Tensor], dict[str, Any]]:
    model, wrapped, hook, optimizer = mains.training(method)
    with hook:
        for step in range(5):
            if thrown_away(step):
                mains.loss_of(wrapped, 100 + step, 0).backward()
                optimizer.zero_grad()
            mains.one_step(wrapped, optimizer, step, 0)
        state = hook.state_dict()
    return [param.detach().clone() for param in model.parameters()], state


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_is_thrown_away_has_not_been(method: str) -> None:
    """Neither for the parameters, nor for the memory, the exchange or the numbers that are drawn."""
    whole, plain = train(method, lambda step: step in (0, 2))
    expected, state = train(method, lambda step: False)
    assert all(torch.equal(one, other) for one, other in zip(whole, expected, strict=True))
    assert plain["tensors"].keys() == state["tensors"].keys()
    assert all(torch.equal(plain["tensors"][name], state["tensors"][name]) for name in state["tensors"])
    assert plain["counters"]["num_steps"] == state["counters"]["num_steps"] == 5


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("method", METHODS)
def test_gradients_that_are_not_finite_are_an_error_and_change_nothing(method: str) -> None:
    _model, wrapped, hook, optimizer = mains.training(method)
    with hook:
        mains.one_step(wrapped, optimizer, 0, 0)
        before = hook.state_dict()["tensors"]
        optimizer.zero_grad()
        loss = mains.loss_of(wrapped, 1, 0) * float("inf")
        with pytest.raises(thinwire.NumericsError, match=r"found at step 2; no memory has taken anything of it"):
            loss.backward()
        after = hook.state_dict()["tensors"]
        assert all(torch.equal(before[name], after[name]) for name in before)
        mains.one_step(wrapped, optimizer, 2, 0)
        assert hook.num_steps == 2


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("method", METHODS)
def test_what_is_kept_of_a_layer_that_nobody_uses_stays_as_it_is(method: str) -> None:
    model, wrapped, hook, optimizer = mains.training(method, find_unused_parameters=True)
    with hook:
        for step in range(2):
            mains.one_step(wrapped, optimizer, step, 0)
        before, spare = copy.deepcopy(hook.state_dict()), model.spare.weight.detach().clone()
        model.uses_spare = False
        mains.one_step(wrapped, optimizer, 2, 0)
        after = hook.state_dict()
        assert after["counters"]["num_steps"] == 3
        assert model.spare.weight.grad is None
        assert torch.equal(model.spare.weight, spare)
        kept = [name for name in before["tensors"] if ".spare." in name and "#" not in name]
        assert all(torch.equal(before["tensors"][name], after["tensors"][name]) for name in kept)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("method", ["topk:k=1", "sgd", "dgc:warmup=1"])
def test_a_bucket_with_nothing_to_compress_is_sent_as_it_is(method: str) -> None:
    model = mains.net()
    wrapped, hook = mains.hooked(model, method, policy=thinwire.DensePolicy())
    expected = torch.autograd.grad(mains.loss_of(model, 0, 0), list(model.parameters()))
    with hook:
        mains.loss_of(wrapped, 0, 0).backward()
        for param, grad in zip(model.parameters(), expected, strict=True):
            assert param.grad is not None
            assert torch.equal(param.grad, grad)


# Mixed precision.


@pytest.mark.usefixtures("alone")
def test_a_scaler_that_the_hook_was_not_given_is_noticed() -> None:
    _model, wrapped, hook, optimizer = mains.training()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with hook:
        scaler.scale(mains.loss_of(wrapped, 0, 0)).backward()
        with pytest.warns(UserWarning, match="GradScaler makes this model's steps, and compress_ddp was not given it"):
            scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        scaler.scale(mains.loss_of(wrapped, 1, 0)).backward()
        scaler.step(optimizer)  # it is said once


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("gives", [True, False])
def test_a_scaler_that_is_off_changes_nothing(gives: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    _model, wrapped, hook, optimizer = mains.training(scaler=scaler if gives else None)
    with hook:
        scaler.scale(mains.loss_of(wrapped, 0, 0)).backward()
        scaler.step(optimizer)
        assert hook.num_steps == 1
        optimizer.zero_grad()
        with pytest.raises(thinwire.NumericsError):  # it would not skip
            (mains.loss_of(wrapped, 1, 0) * float("nan")).backward()


@pytest.mark.usefixtures("alone")
def test_a_scaler_that_was_given_skips_what_is_not_finite() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    model, wrapped, hook, optimizer = mains.training(scaler=scaler)
    begin = model.first.weight.detach().clone()
    with hook:
        scaler.scale(mains.loss_of(wrapped, 0, 0) * float("inf")).backward()
        scaler.step(optimizer)
        scaler.update()
        assert hook.num_steps == 0
        assert torch.equal(model.first.weight, begin)
        optimizer.zero_grad()
        scaler.scale(mains.loss_of(wrapped, 1, 0)).backward()
        scaler.step(optimizer)
        assert hook.num_steps == 1


# States between steps.


@pytest.mark.usefixtures("alone")
def test_a_state_has_what_was_applied_and_not_what_waits() -> None:
    model, wrapped, hook, optimizer = mains.training()
    with hook:
        mains.one_step(wrapped, optimizer, 0, 0)
        before = copy.deepcopy(hook.state_dict())
        optimizer.zero_grad()
        mains.loss_of(wrapped, 1, 0).backward()
        waits = hook.state_dict()
        assert waits["counters"]["num_steps"] == 1
        assert all(torch.equal(before["tensors"][name], waits["tensors"][name]) for name in before["tensors"])
        with torch.no_grad():
            for param in model.parameters():
                assert param.grad is not None
                param.sub_(0.05 * param.grad)
        assert hook.state_dict()["counters"]["num_steps"] == 2


@pytest.mark.usefixtures("alone")
def test_a_loaded_state_is_not_changed_by_what_waited() -> None:
    _model, wrapped, hook, optimizer = mains.training()
    with hook:
        mains.one_step(wrapped, optimizer, 0, 0)
        state = copy.deepcopy(hook.state_dict())
        optimizer.zero_grad()
        mains.loss_of(wrapped, 1, 0).backward()
        hook.load_state_dict(state)
        optimizer.step()
        after = hook.state_dict()
        assert after["counters"]["num_steps"] == 1
        assert all(torch.equal(state["tensors"][name], after["tensors"][name]) for name in state["tensors"])


@pytest.mark.usefixtures("alone")
def test_a_replaced_layer_begins_with_no_memory_and_a_frozen_one_keeps_it() -> None:
    model, wrapped, hook, optimizer = mains.training()
    with hook:
        mains.one_step(wrapped, optimizer, 0, 0)
        kept = hook.state_dict()["tensors"]["memory.residual.spare.weight"]
        assert kept.any()
        model.spare.requires_grad_(False)
        model.last = nn.Linear(10, 3)
        with torch.no_grad():
            model.last.weight.zero_()
        wrapped(torch.ones(1, 6))
        tensors = hook.state_dict()["tensors"]
        assert "memory.residual.last.weight" not in tensors
        assert torch.equal(tensors["memory.residual.spare.weight"], kept)
        other = mains.net()
        other.load_state_dict(model.state_dict())
        _, resumed = mains.hooked(other)
        with resumed:
            resumed.load_state_dict(hook.state_dict())


@pytest.mark.usefixtures("alone")
def test_half_of_an_adversarial_pair_is_frozen_and_freed_again_without_another_reducer() -> None:
    critic, maker = mains.net(), nn.Linear(6, 6)
    wrapped, hook = mains.hooked(critic)
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.05)
    with hook:
        reducer = wrapped.reducer
        for step in range(3):
            critic.requires_grad_(False)
            wrapped(maker(torch.ones(2, 6))).sum().backward()
            assert maker.weight.grad is not None
            critic.requires_grad_(True)
            mains.one_step(wrapped, optimizer, step, 0)
        assert wrapped.reducer is reducer
        assert hook.num_steps == 3
