"""Exchanges in two steps: what came back counts later or never, and nothing that is owed is lost or sent twice."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
import torch
from method_cases import CATALOGUE, Crew, backward, bits, flat
from test_gradient_rounds import GRADIENTS
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.exchanges import Gather
from thinwire.methods import ModelAveraging, Outer, parse_method
from thinwire.payloads import Dense, Sparse
from thinwire.steps import AllGather, Tell
from thinwire.wire import encode
from thinwire.worker import Worker, needs_server
from thinwire.worker.averaging import Proposal
from thinwire.worker.rounds import Rounds, checksum_of_mean

SIZE = 3
NUMEL = sum(param.numel() for param in Crew(parse_method("local-sgd"), 1).models[0].parameters())
NOTHING = encode(Sparse(NUMEL, torch.empty(0, dtype=torch.int64), Dense(torch.empty(0, dtype=torch.float32))))


def has_rounds(name: str) -> bool:
    method = parse_method(name)
    if not isinstance(method, ModelAveraging) or not isinstance(method.update, Outer) or needs_server(method):
        return False
    if method.states:
        return False
    return not Crew(method, SIZE).workers[0].channels[0].exchange


ROUNDS = [name for name in CATALOGUE if has_rounds(name)]
GATHERED = [
    "local-sgd:every=2",
    "signtopk:density=20%,every=2",
    "qsparse:density=20%,every=2,values=signs,exchange=gather",
]


def state(worker: Worker) -> dict[str, Any]:
    saved = worker.state_dict()
    tensors = {name: bits(tensor.clone()) for name, tensor in saved["tensors"].items()}
    return {"counters": saved["counters"], "tensors": tensors, "model": bits(flat(worker.model))}


def local_step(crew: Crew, rank: int) -> bool:
    worker = crew.workers[rank]
    backward(crew.models[rank], rank, worker.num_steps)
    worker.optimizer.step()
    return Rounds(worker).count_step()


def propose(crew: Crew, present: Collection[int]) -> list[Proposal]:
    """Every worker's exchange, where messages of those that are not present do not arrive."""
    programs = [Rounds(worker).propose() for worker in crew.workers]
    ops, proposals = [next(program) for program in programs], []
    while all(isinstance(op, Tell) for op in ops):
        told = [op.message for op in ops if isinstance(op, Tell)]
        ops = [program.send(told) for program in programs]
    messages = [op.message if rank in present else NOTHING for rank, op in enumerate(ops) if isinstance(op, AllGather)]
    for op, program in zip(ops, programs, strict=True):
        assert isinstance(op, AllGather)
        with pytest.raises(StopIteration) as ended:
            program.send(op.combine(messages))
        proposals.append(ended.value.value)
    return proposals


@pytest.mark.parametrize("name", ROUNDS)
def test_proposed_and_accepted_is_stepped_bit_for_bit(name: str) -> None:
    stepped, crew = Crew(parse_method(name), SIZE), Crew(parse_method(name), SIZE)
    for _ in range(9):
        stepped.step()
        if {local_step(crew, rank) for rank in range(SIZE)} == {True}:
            before = [state(worker) for worker in crew.workers]
            lost = crew.simulation.run([Rounds(worker).propose() for worker in crew.workers])
            told = [{**each, "counters": {**each["counters"]}} for each in before]
            assert [state(worker) for worker in crew.workers] == told, "an exchange that does not count leaves no trace"
            again = crew.simulation.run([Rounds(worker).propose() for worker in crew.workers])
            assert len({checksum_of_mean(each) for each in (*lost, *again)}) == 1
            for worker, proposal in zip(crew.workers, again, strict=True):
                after = {name: tensor.clone() for name, tensor in Rounds(worker).memory_after(proposal).items()}
                Rounds(worker).accept(proposal)
                if "bf16" not in name:
                    assert all(torch.equal(after[name], kept) for name, kept in Rounds(worker).memory().items())
        for one, other in zip(stepped.workers, crew.workers, strict=True):
            assert state(one) == state(other)
    assert len({Rounds(worker).checksum() for worker in crew.workers}) == 1


def point(worker: Worker) -> Tensor:
    return torch.cat([each.double().reshape(-1) for each in worker.shared_parameters().values()])


def memory(worker: Worker) -> Tensor:
    kept = Rounds(worker).memory()
    return torch.cat([each.double().reshape(-1) for each in kept.values()]) if kept else torch.zeros(1).double()


@pytest.mark.parametrize("name", GATHERED)
def test_what_a_late_worker_did_is_neither_lost_nor_sent_twice(name: str) -> None:
    method = parse_method(name)
    assert isinstance(method, ModelAveraging)
    crew = Crew(replace(method, exchange=Gather()), SIZE)
    begin = point(crew.workers[0])
    handed_in = torch.zeros_like(begin)
    choices = torch.Generator().manual_seed(1)
    num_late = 0
    for _ in range(20):
        dues = [local_step(crew, rank) for rank in range(SIZE)]
        if not all(dues):
            continue
        present = [rank for rank in range(SIZE) if torch.rand(1, generator=choices) < 0.6]
        drifts = [point(worker) - flat(worker.model).double() for worker in crew.workers]
        for rank, proposal in enumerate(propose(crew, present)):
            rounds = Rounds(crew.workers[rank])
            if rank in present:
                handed_in += drifts[rank] / SIZE
                rounds.accept(proposal)
            else:
                num_late += 1
                owed = memory(crew.workers[rank])
                rounds.follow(proposal)
                assert torch.equal(memory(crew.workers[rank]), owed)
                now = point(crew.workers[rank]) - flat(crew.models[rank]).double()
                torch.testing.assert_close(now, drifts[rank], atol=1e-6, rtol=0)
        assert len({Rounds(worker).checksum() for worker in crew.workers}) == 1
        owed = torch.stack([memory(worker).expand(NUMEL) for worker in crew.workers]).sum(0) / SIZE
        torch.testing.assert_close(begin - point(crew.workers[0]), handed_in - owed, atol=1e-6, rtol=0)
    assert num_late > 5


@pytest.mark.parametrize("name", ["signtopk:density=20%,every=2", "signtopk:density=20%,every=2,residual_dtype=bf16"])
def test_workers_that_stay_owe_what_they_owed(name: str) -> None:
    crew = Crew(parse_method(name), SIZE).run(8)
    owed = sum(memory(worker) for worker in crew.workers[1:]) / SIZE
    assert isinstance(owed, Tensor)
    assert owed.abs().max() > 1e-3
    for rank, worker in enumerate(crew.workers[1:]):
        Rounds(worker).resize(rank, SIZE - 1)
        assert (worker.rank, worker.size, worker.state_dict()["counters"]["size"]) == (rank, SIZE - 1, SIZE - 1)
    now = sum(memory(worker) for worker in crew.workers[1:]) / (SIZE - 1)
    tolerance = 2.0**-8 * owed.abs().max().item() if "bf16" in name else 1e-7
    torch.testing.assert_close(now, owed, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ROUNDS)
def test_resized_workers_train_as_those_who_began_so(name: str) -> None:
    """Without memory they are the same; with one only what is owed differs, so it is emptied first."""
    crew, small = Crew(parse_method(name), SIZE), Crew(parse_method(name), 2)
    for rank in range(2):
        Rounds(crew.workers[rank]).resize(rank, 2)
    crew.workers, crew.models, crew.simulation = crew.workers[:2], crew.models[:2], small.simulation
    for _ in range(6):
        crew.step()
        small.step()
    assert [state(worker) for worker in crew.workers] == [state(worker) for worker in small.workers]


@pytest.mark.parametrize("keeps_drift", [True, False])
@pytest.mark.parametrize("name", ROUNDS)
def test_who_takes_over_what_is_common_stands_where_the_others_do(name: str, keeps_drift: bool) -> None:
    crew, late = Crew(parse_method(name), SIZE).run(7), Crew(parse_method(name), SIZE)
    worker = late.workers[2]
    for _ in range(2):
        local_step(late, 2)
    drift, owed = point(worker) - flat(worker.model).double(), memory(worker)
    rounds, common = Rounds(worker), Rounds(crew.workers[0]).common_state()
    rounds.take_common(common, keeps_drift=keeps_drift)
    assert rounds.checksum() == Rounds(crew.workers[0]).checksum()
    assert (worker.num_steps, worker.num_exchanges) == (7, crew.workers[0].num_exchanges)
    now = point(worker) - flat(worker.model).double()
    torch.testing.assert_close(now, drift if keeps_drift else torch.zeros_like(now), atol=1e-6, rtol=0)
    assert torch.equal(memory(worker), owed)
    assert (worker.num_unshared_steps > 0) == keeps_drift


def test_a_common_state_of_another_training_is_refused() -> None:
    worker = Crew(parse_method("diloco:every=2"), 1).run(3).workers[0]
    before = state(worker)
    common = Rounds(worker).common_state()
    for other in (
        {**common, "counters": {**common["counters"], "method": "another"}},
        {**common, "tensors": dict(list(common["tensors"].items())[1:])},
    ):
        with pytest.raises(ConfigError):
            Rounds(worker).take_common(other, keeps_drift=True)
    with pytest.raises(ConfigError, match="memory is of another"):
        Rounds(worker).take_memory({"memory.residual.w": torch.ones(1)})
    assert state(worker) == before


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name not in (*ROUNDS, *GRADIENTS)])
def test_methods_without_a_common_mean_are_refused(name: str) -> None:
    worker = Crew(parse_method(name), 2).workers[0]
    with pytest.raises(ConfigError, match=r"such as sgd|exchange=gather|such as local-sgd"):
        Rounds(worker)
