"""Another number of workers goes on from the same point: what was owed to the common model is owed still."""

from typing import Any

import pytest
import torch
from method_cases import suited
from torch import Tensor, nn

from thinwire import Simulation, Worker
from thinwire.errors import ConfigError
from thinwire.methods import CATALOG, parse_method

LR = 0.1


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)


def crew(method: str, size: int, dtype: torch.dtype = torch.float32) -> list[Worker]:
    workers = []
    for rank in range(size):
        model = network(dtype)
        parsed = parse_method(method)
        optimizer = suited(parsed, lambda params: torch.optim.SGD(params, lr=LR))(model.parameters())
        workers.append(Worker(parsed, model, optimizer, rank=rank, size=size, seed=1))
    return workers


def train(workers: list[Worker], steps: int) -> None:
    simulation = Simulation(len(workers))
    for _ in range(steps):
        for worker in workers:
            worker.optimizer.zero_grad()
            generator = torch.Generator().manual_seed(100 * worker.num_steps + worker.rank)
            x = torch.randn(6, 5, generator=generator).to(next(worker.model.parameters()).dtype)
            (worker.model(x).float() - x[:, :2].float().sin()).square().mean().backward()
        simulation.run([worker.step() for worker in workers])


def states(workers: list[Worker]) -> tuple[list[dict[str, Any]], list[dict[str, Tensor]]]:
    saved = [worker.state_dict() for worker in workers]
    copies = [{**each, "tensors": {n: t.clone() for n, t in each["tensors"].items()}} for each in saved]
    return copies, [{n: p.detach().clone() for n, p in worker.model.named_parameters()} for worker in workers]


def resume(method: str, size: int, old: list[Worker], dtype: torch.dtype = torch.float32) -> list[Worker]:
    saved, models = states(old)
    workers = crew(method, size, dtype)
    for worker in workers:
        worker.load_resized(saved, models)
    return workers


def flat(tensors: dict[str, Tensor], prefix: str = "") -> Tensor:
    names = [name for name, _ in network().named_parameters()]
    return torch.cat([tensors[prefix + name].double().reshape(-1) for name in names])


def owed(workers: list[Worker], decay: float = 1.0) -> Tensor:
    """``1/P sum of (decay m_p + reference - x_p)``: what the workers have done that the common model has not."""
    total = torch.zeros(66, dtype=torch.float64)
    for worker in workers:
        tensors = worker.state_dict()["tensors"]
        total += decay * flat(tensors, "memory.residual.")
        if any(name.startswith("update.reference.") for name in tensors):
            own = dict(worker.model.named_parameters())
            total += flat(tensors, "update.reference.") - flat({n: p.detach() for n, p in own.items()})
            if any(name.startswith("rounding.") for name in tensors):
                total -= flat(tensors, "rounding.lost.")
    return total / len(workers)


@pytest.mark.parametrize("steps", [6, 7], ids=["just exchanged", "between exchanges"])
@pytest.mark.parametrize(
    ("method", "decay"),
    [("topk:density=5%", 1.0), ("signtopk:density=10%,every=3", 1.0), ("sparseloco:density=10%,every=3", 0.95)],
)
def test_what_is_owed_to_the_common_model_is_conserved(method: str, decay: float, steps: int) -> None:
    four = crew(method, 4)
    train(four, steps)
    before, common = owed(four, decay), flat(four[0].shared_parameters())
    assert before.norm() > 1e-3
    for size in (3, 4, 7, 1):
        resized = resume(method, size, four)
        assert (owed(resized, decay) - before).norm() < 1e-6 * before.norm()
        for worker in resized:
            assert torch.equal(flat(worker.shared_parameters()), common)
            assert (worker.num_steps, worker.rank, worker.size) == (steps, worker.rank, size)
    three = resume(method, 3, four)
    again = resume(method, 4, three)
    assert (owed(again, decay) - before).norm() < 1e-6 * before.norm()
    # Workers that stayed all the time have their own residual, and new ones none.
    assert not flat(again[3].state_dict()["tensors"], "memory.residual.").any()
    train(again, 6)
    shared = [flat(worker.shared_parameters()) for worker in again]
    assert all(torch.equal(shared[0], other) for other in shared)


def test_the_virtual_iterate_does_not_jump() -> None:
    """``x - 1/P sum m``, which the proofs follow, is where it was."""
    four = crew("topk:density=5%", 4)
    train(four, 5)
    virtual = flat(four[0].shared_parameters()) - owed(four)
    three = resume("topk:density=5%", 3, four)
    assert (flat(three[0].shared_parameters()) - owed(three) - virtual).norm() < 1e-6 * virtual.norm()


def test_gradient_averaging_with_momentum_in_the_memory() -> None:
    method = "dgc:density=5%"
    four = crew(method, 4)
    train(four, 5)
    saved, _ = states(four)
    for size in (2, 6):
        resized = resume(method, size, four)
        for kind in ("memory.momentum.", "memory.residual."):
            before = sum((flat(each["tensors"], kind) for each in saved), start=torch.zeros(())) / 4
            after = sum((flat(each.state_dict()["tensors"], kind) for each in resized), start=torch.zeros(())) / size
            assert before.norm() > 0
            assert (after - before).norm() < 1e-6 * before.norm()
        train(resized, 3)


def test_bf16_parameters_between_exchanges() -> None:
    method = "signtopk:density=10%,every=3"
    four = crew(method, 4, torch.bfloat16)
    train(four, 7)
    before = owed(four)
    three = resume(method, 3, four, torch.bfloat16)
    assert (owed(three) - before).norm() < 1e-6 * before.norm()
    assert any(t.any() for n, t in three[0].state_dict()["tensors"].items() if n.startswith("rounding."))


def test_the_same_number_of_workers_gets_the_same_bits_right_after_an_exchange() -> None:
    method = "signtopk:density=10%,every=3"
    four = crew(method, 4)
    train(four, 6)
    again = resume(method, 4, four)
    train(four, 5)
    train(again, 5)
    for first, second in zip(four, again, strict=True):
        assert torch.equal(flat(dict(first.model.named_parameters())), flat(dict(second.model.named_parameters())))


@pytest.mark.parametrize(
    ("method", "steps", "message"),
    [
        ("local-sgd:every=3", 7, "no residual that would keep this"),
        ("d-psgd", 4, "have models of their own"),
        ("easgd:every=2", 4, "no residual that would keep this|have models of their own"),
        ("ef21-plus:density=10%,exchange=server", 4, "each saved worker's own and has no meaning for another number"),
        ("ok-topk:density=10%", 4, "each saved worker's own and has no meaning for another number"),
    ],
)
def test_what_only_has_a_meaning_for_as_many_workers_is_refused(method: str, steps: int, message: str) -> None:
    four = crew(method, 4)
    train(four, steps)
    saved, models = states(four)
    (three,) = crew(method, 3)[:1]
    before = {name: tensor.clone() for name, tensor in three.state_dict()["tensors"].items()}
    with pytest.raises(ConfigError, match=message):
        three.load_resized(saved, models)
    assert all(torch.equal(tensor, before[name]) for name, tensor in three.state_dict()["tensors"].items())


OF_A_PLACE = ("01-adam", "1bit-sgd", "1bit-adam", "1bit-lamb", "ef21-plus", "gtopk", "ok-topk")


@pytest.mark.parametrize("row", CATALOG, ids=[row.name for row in CATALOG])
def test_every_row_is_resized_or_refused_with_a_reason(row: Any) -> None:
    method = parse_method(row.name)
    if method.exchange.__class__.__name__ == "AsynchronousServer":
        pytest.skip("its workers run at their own pace; the server's state is not theirs")
    four = crew(row.name, 4)
    saved, models = states(four)  # before the first step nothing is any worker's own, but its part of the regions
    three = crew(row.name, 3)
    try:
        for worker in three:
            worker.load_resized(saved, models)
    except ConfigError as error:
        reason = str(error)
        # What an owner of a region, or an inner node of a tree, remembers.
        assert ("has no meaning for another number of workers" in reason) == (row.name in OF_A_PLACE)
        return
    assert row.name not in OF_A_PLACE
    train(three, 2)


def test_states_of_different_steps_are_refused() -> None:
    four = crew("topk:density=5%", 4)
    train(four, 2)
    saved, models = states(four)
    saved[1]["counters"]["num_steps"] = 3
    with pytest.raises(ConfigError, match="the saved workers differ in num_steps: "):
        crew("topk:density=5%", 3)[0].load_resized(saved, models)
