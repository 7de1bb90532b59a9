"""Exchanges of gradients in two steps: proposed, then accepted by all or forgotten; and one model that all have."""

from typing import Any

import pytest
import torch
from method_cases import CATALOGUE, OPTIMIZERS, Crew, backward, bits, flat
from torch import Tensor

from thinwire.errors import ConfigError, NumericsError
from thinwire.methods import GradientAveraging, parse_method
from thinwire.worker import Worker
from thinwire.worker.optimizer_state import fill_optimizer, optimizer_state
from thinwire.worker.rounds import Rounds, checksum_of_mean

SIZE = 3


def has_rounds(name: str) -> bool:
    method = parse_method(name)
    return isinstance(method, GradientAveraging) and not Crew(method, SIZE).workers[0].channels[0].exchange


GRADIENTS = [name for name in CATALOGUE if has_rounds(name)]


def state(worker: Worker) -> dict[str, Any]:
    saved = worker.state_dict()
    tensors = {name: bits(tensor.clone()) for name, tensor in saved["tensors"].items()}
    kept, _ = optimizer_state(worker.model, worker.optimizer)
    grads = [None if each.grad is None else bits(each.grad.clone()) for each in worker.model.parameters()]
    return {
        "counters": {**saved["counters"]}, "tensors": tensors, "model": bits(flat(worker.model)), "grads": grads,
        "optimizer": {name: bits(tensor.clone()) for name, tensor in kept.items()},
    }  # fmt: skip


def step(crew: Crew) -> None:
    """One step of all, by rounds."""
    for rank, worker in enumerate(crew.workers):
        backward(crew.models[rank], rank, worker.num_steps)
        Rounds(worker).begin_step()
    proposals = crew.simulation.run([Rounds(worker).propose() for worker in crew.workers])
    for worker, proposal in zip(crew.workers, proposals, strict=True):
        Rounds(worker).accept(proposal)
        worker.optimizer.step()
        assert not Rounds(worker).count_step()


@pytest.mark.parametrize("name", GRADIENTS)
def test_proposed_and_accepted_is_stepped_bit_for_bit(name: str) -> None:
    adam = OPTIMIZERS["adam"]
    stepped, crew = Crew(parse_method(name), SIZE, adam), Crew(parse_method(name), SIZE, adam)
    for _ in range(5):
        stepped.step()
        for rank, worker in enumerate(crew.workers):
            backward(crew.models[rank], rank, worker.num_steps)
        first = worker.num_steps == 0
        before = [state(worker) for worker in crew.workers]
        lost = crew.simulation.run([Rounds(worker).propose() for worker in crew.workers])
        if not first:  # in which what all must have in common is compared once
            assert [state(worker) for worker in crew.workers] == before, "what does not count leaves no trace"
        again = crew.simulation.run([Rounds(worker).propose() for worker in crew.workers])
        assert len({checksum_of_mean(each) for each in (*lost, *again)}) == 1
        for worker, proposal in zip(crew.workers, again, strict=True):
            Rounds(worker).accept(proposal)
            worker.optimizer.step()
            assert not Rounds(worker).count_step()
        assert [state(worker) for worker in crew.workers] == [state(worker) for worker in stepped.workers]
    assert len({Rounds(worker).checksum() for worker in crew.workers}) == 1


@pytest.mark.parametrize("name", GRADIENTS)
def test_who_takes_over_what_is_common_trains_on_as_the_others_do(name: str) -> None:
    adam = OPTIMIZERS["adam"]
    crew, late = Crew(parse_method(name), SIZE, adam).run(4), Crew(parse_method(name), SIZE, adam).run(2)
    worker = late.workers[1]
    owed = {name: tensor.clone() for name, tensor in Rounds(worker).memory().items()}
    backward(worker.model, 1, 7)
    Rounds(worker).take_common(Rounds(crew.workers[0]).common_state(), keeps_drift=True)
    assert Rounds(worker).checksum() == Rounds(crew.workers[0]).checksum()
    assert (worker.num_steps, worker.num_exchanges) == (4, crew.workers[0].num_exchanges)
    assert not any(param.grad.any() for param in worker.model.parameters() if param.grad is not None)
    assert all(torch.equal(tensor, owed[name]) for name, tensor in Rounds(worker).memory().items())
    crew.workers[1], crew.models[1] = worker, worker.model
    for _ in range(3):
        step(crew)
    assert len({bits(flat(model)) for model in crew.models}) == 1


@pytest.mark.parametrize("name", ["ef-sgd:density=20%", "ef-sgd:select=all,values=signs"])
def test_what_is_handed_in_is_applied_or_owed_whoever_comes_and_goes(name: str) -> None:
    """The sum of the means that counted is what was handed in, less the residuals, each over the number of workers."""
    crew = Crew(parse_method(name), SIZE)
    numel = flat(crew.models[0]).numel()
    handed_in, applied = torch.zeros(numel, dtype=torch.float64), torch.zeros(numel, dtype=torch.float64)

    def gradient(worker: Worker) -> Tensor:
        grads = [param.grad for param in worker.model.parameters()]
        return torch.cat([each.double().reshape(-1) for each in grads if each is not None])

    for size in (3, 3, 2, 2, 2, 3, 3, 1, 3):
        members = Crew(parse_method(name), size)
        members.workers, members.models = crew.workers[:size], crew.models[:size]
        leader = Rounds(crew.workers[0]).common_state()
        for rank, worker in enumerate(members.workers):
            Rounds(worker).resize(rank, size)
            if worker.num_exchanges != crew.workers[0].num_exchanges:
                Rounds(worker).take_common(leader, keeps_drift=True)
            backward(worker.model, rank, worker.num_steps)
            handed_in += gradient(worker) / size
        proposals = members.simulation.run([Rounds(worker).propose() for worker in members.workers])
        for worker, proposal in zip(members.workers, proposals, strict=True):
            Rounds(worker).accept(proposal)
        applied += gradient(members.workers[0])
        for worker in members.workers:
            worker.optimizer.step()
            Rounds(worker).count_step()
    owed = torch.zeros(numel, dtype=torch.float64)
    for worker in crew.workers:
        kept = torch.cat([each.double().reshape(-1) for each in Rounds(worker).memory().values()])
        owed += kept / worker.size
    assert owed.abs().max() > 1e-3
    torch.testing.assert_close(applied, handed_in - owed, atol=1e-6, rtol=0)


def test_a_mean_that_is_not_finite_counts_nowhere_and_leaves_no_trace() -> None:
    crew = Crew(parse_method("ef-sgd:density=20%"), SIZE).run(2)
    for rank, worker in enumerate(crew.workers):
        backward(crew.models[rank], rank, worker.num_steps)
    grad = next(crew.models[1].parameters()).grad
    assert grad is not None
    grad[0, 0] = torch.inf
    before = [state(worker) for worker in crew.workers]
    proposals = crew.simulation.run([Rounds(worker).propose(skips=True) for worker in crew.workers])
    assert not any(proposal.is_finite for proposal in proposals)
    assert [state(worker) for worker in crew.workers] == before
    with pytest.raises(NumericsError):
        crew.simulation.run([Rounds(worker).propose() for worker in crew.workers])


def test_a_parameter_without_a_gradient_has_none_again_before_the_next_attempt() -> None:
    crew = Crew(parse_method("sgd"), SIZE).run(1)
    for rank, worker in enumerate(crew.workers):
        backward(crew.models[rank], rank, worker.num_steps)
        next(crew.models[rank].parameters()).grad = None
    for _ in range(2):
        proposals = crew.simulation.run([Rounds(worker).propose() for worker in crew.workers])
        used = {name for worker in crew.workers for name in worker.agreement.used}
        assert "0.weight" not in used
    for worker, proposal in zip(crew.workers, proposals, strict=True):
        Rounds(worker).accept(proposal)
        assert "0.weight" not in worker.layout.names


def test_an_optimizer_that_keeps_other_things_is_refused_by_name() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight]["history"] = [1, 2]
    with pytest.raises(ConfigError, match="keeps 'history' of 'weight', a list"):
        optimizer_state(model, optimizer)
    with pytest.raises(ConfigError, match="no such parameter"):
        fill_optimizer(model, optimizer, {"momentum.gone": torch.zeros(1)}, {})


def test_a_round_without_ones_own_gradient_is_refused() -> None:
    crew = Crew(parse_method("sgd"), 1)
    backward(crew.models[0], 0, 0)
    (proposal,) = crew.simulation.run([Rounds(crew.workers[0]).propose()])
    with pytest.raises(ConfigError, match="take a method that averages models"):
        Rounds(crew.workers[0]).follow(proposal)
