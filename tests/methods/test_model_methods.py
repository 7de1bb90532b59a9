"""Local steps: elastic and outer updates, fragments, schedules, and the rows made of them."""

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from method_cases import OPTIMIZERS, Crew, backward, bits, flat, saved, shared, small_model
from torch import Tensor, nn

from thinwire.compressors import Identity
from thinwire.errors import ConfigError
from thinwire.exchanges import AsynchronousServer, Gather, ParameterServer
from thinwire.layout import Segments
from thinwire.methods import (
    Elastic,
    Every,
    Follow,
    ModelAveraging,
    Outer,
    PostLocal,
    RandomGaps,
    Schedule,
    Staggered,
    parse_method,
)
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.theory import elastic_is_stable
from thinwire.wire import encode
from thinwire.worker import Worker


class Alone:
    """Workers that only train, as flat vectors in f64 between the steps: what laws are written with."""

    def __init__(self, size: int, optimizer: str) -> None:
        self.models = [small_model() for _ in range(size)]
        self.steppers = [OPTIMIZERS[optimizer](model.parameters()) for model in self.models]
        self.num_steps = 0

    def step(self) -> Tensor:
        """One local step each; the parameters, ``[size, d]``."""
        for rank, (model, stepper) in enumerate(zip(self.models, self.steppers, strict=True)):
            backward(model, rank, self.num_steps)
            stepper.step()
        self.num_steps += 1
        return torch.stack([flat(model) for model in self.models]).double()

    def put(self, params: Tensor) -> None:
        for model, vector in zip(self.models, params, strict=True):
            nn.utils.vector_to_parameters(vector.float().clone(), model.parameters())


def near(x: Tensor, y: Tensor) -> bool:
    return torch.allclose(x.double(), y.double(), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize(("beta", "alpha"), [(0.9, None), (0.5, 0.3), (0.4, 0.9)])
@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("optimizer", ["plain", "nesterov and decay"])
def test_elastic_averaging_is_its_equations(optimizer: str, size: int, beta: float, alpha: float | None) -> None:
    method = ModelAveraging(schedule=Every(2), update=Elastic(beta=beta, alpha=alpha))
    crew, alone = Crew(method, size, OPTIMIZERS[optimizer]), Alone(size, optimizer)
    centre, pull = flat(small_model()).double(), beta / size if alpha is None else alpha
    for step in range(8):
        crew.step()
        x = alone.step()
        if step % 2 == 1:
            x, centre = x + pull * (centre - x), (1 - beta) * centre + beta * x.mean(dim=0)
            alone.put(x)
        assert all(near(flat(model), vector) for model, vector in zip(crew.models, x, strict=True))
        assert all(near(shared(worker), centre) for worker in crew.workers)


def scattered(method: ModelAveraging, size: int) -> Crew:
    """Workers at points of their own, whose optimizers do not move them."""
    crew = Crew(method, size, lambda params: torch.optim.SGD(params, lr=0.0))
    for rank, model in enumerate(crew.models):
        generator = torch.Generator().manual_seed(rank)
        with torch.no_grad():
            for param in model.parameters():
                param.add_(torch.randn(param.shape, generator=generator))
        crew.workers[rank].accept_values()
    return crew


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("exchange", [Gather(), ParameterServer()], ids=str)
def test_the_elastic_force_moves_centre_and_workers_by_equal_and_opposite_amounts(exchange: Any, size: int) -> None:
    crew = scattered(ModelAveraging(update=Elastic(), exchange=exchange), size)
    for _ in range(4):
        before = torch.stack([flat(model) for model in crew.models]).double()
        centre = shared(crew.workers[0]).double().clone()
        crew.step()
        after = torch.stack([flat(model) for model in crew.models]).double()
        moved = shared(crew.workers[0]).double()
        assert near(moved, 0.1 * centre + 0.9 * before.mean(dim=0))
        assert near(moved + after.sum(dim=0), centre + before.sum(dim=0))
        assert size == 1 or not near(after[0], after[1])


def test_workers_on_springs_come_together_and_others_are_refused() -> None:
    crew = scattered(ModelAveraging(update=Elastic(beta=0.9, alpha=0.7)), 3).run(60)
    assert all(near(flat(model), shared(crew.workers[0])) for model in crew.models)
    with pytest.raises(ConfigError, match="alpha \\+ beta is above 2"):
        Elastic(beta=1.5, alpha=0.6)
    with pytest.raises(ConfigError, match="beta / P"):
        Elastic(beta=1.5)
    with pytest.warns(UserWarning, match="jumps over"):
        Elastic(beta=1.2, alpha=0.1)


def test_late_and_mixed_fragments_are_streaming_diloco() -> None:
    """Each fragment by itself: its displacement is sent, and its outer step mixed in, ``delay`` steps later."""
    method = replace(parse_method("streaming-diloco:every=2,fragments=3,delay=1,mix=0.25"), compressor=Identity())
    size, numel = 3, flat(small_model()).numel()
    crew, alone = Crew(method, size), Alone(size, "plain")
    bounds = [numel * part // 3 for part in range(4)]
    parts = [slice(bounds[part], bounds[part + 1]) for part in range(3)]
    reference = flat(small_model()).double()
    velocity = torch.zeros(numel, dtype=torch.float64)
    waiting: dict[int, tuple[int, Tensor]] = {}
    turn = 0
    for step in range(1, 19):
        crew.step()
        x = alone.step()
        for part, (due, displacement) in list(waiting.items()):
            if due == step:
                here = parts[part]
                velocity[here] = 0.9 * velocity[here] + displacement
                reference[here] -= 0.7 * (displacement + 0.9 * velocity[here])
                x[:, here] = 0.25 * x[:, here] + 0.75 * reference[here]
                del waiting[part]
        alone.put(x)
        if step % 2 == 0:
            here = parts[turn % 3]
            waiting[turn % 3] = step + 1, (reference[here] - x[:, here]).mean(dim=0)
            turn += 1
        assert all(near(flat(model), vector) for model, vector in zip(crew.models, x, strict=True))
        assert near(shared(crew.workers[0]), reference)
    assert turn == 9


def test_a_mix_of_nothing_is_the_reference() -> None:
    first, second = (Crew(parse_method(f"diloco:every=2,mix={mix}"), 2).run(6) for mix in ("0", "0.5"))
    assert bits(flat(first.models[0])) == bits(shared(first.workers[0]))
    assert not near(flat(second.models[0]), shared(second.workers[0]))
    assert not near(flat(second.models[0]), flat(second.models[1]))


@pytest.mark.parametrize("fragments", [1, 4])
def test_each_component_is_averaged_once_in_p_steps(fragments: int) -> None:
    crew = Crew(parse_method(f"sparse-averaging:fragments={fragments}"), 3)
    numel = flat(crew.models[0]).numel()
    bounds = [numel * part // fragments for part in range(fragments + 1)]
    for step in range(9):
        crew.step()
        params = torch.stack([flat(model) for model in crew.models])
        equal = (params == params[0]).all(dim=0)
        part = step % fragments
        assert bool(equal[bounds[part] : bounds[part + 1]].all())
        if fragments > 1:
            assert not bool(equal.all())
    assert crew.workers[0].message_bytes == pytest.approx(9 * 4 * numel / fragments, rel=0.1)


@pytest.mark.parametrize("decay", ["0.95", "0.5"])
def test_what_sparseloco_does_not_send_fades(decay: str) -> None:
    """Alone: m' + sent = decay m + displacement, where the model moves by what was sent."""
    (worker,) = (crew := Crew(parse_method(f"sparseloco:every=2,density=20%,decay={decay}"), 1)).workers
    alone = Alone(1, "plain")
    reference = flat(small_model()).double()
    memory = torch.zeros_like(reference)
    for step in range(10):
        crew.step()
        (x,) = alone.step()
        if step % 2 == 0:
            continue
        sent = reference - shared(worker).double()
        assert near(saved(worker, "memory.residual") + sent, float(decay) * memory + reference - x)
        assert int((sent.abs() > 1e-7).sum()) <= math.ceil(0.2 * sent.numel())
        reference, memory = shared(worker).double().clone(), saved(worker, "memory.residual").double().clone()
        alone.put(reference[None])


def test_pqasgd_sends_a_thirtieth_without_a_memory() -> None:
    method = parse_method("pqasgd")
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    segments = Segments.uniform(x.numel(), 512)
    message = encode(method.compressor.compress(x, Key(0), segments))
    assert 30 <= 4 * x.numel() * 2 / message.numel() <= 32
    assert method.memory.init(torch.zeros(3)) == {}
    exact = replace(method, compressor=Identity())
    assert near(
        flat(Crew(exact, 3).run(6).models[0]), flat(Crew(parse_method("local-sgd:every=2"), 3).run(6).models[0])
    )


def test_random_gaps_keep_the_virtual_iterate() -> None:
    """mean_r xhat - virtual = mean_r m at any schedule that all workers share."""
    crew = Crew(parse_method("qsparse:density=20%,levels=3,every=4,gaps=random"), 3)
    virtual = flat(crew.models[0]).double()
    exchanges = []
    for step in range(20):
        gradients = []
        for rank, model in enumerate(crew.models):
            backward(model, rank, step)
            gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]))
        virtual -= 0.1 * torch.stack(gradients).double().mean(dim=0)
        crew.step()
        models = torch.stack([flat(model) for model in crew.models]).double().mean(dim=0)
        memory = torch.stack([saved(worker, "memory.residual") for worker in crew.workers]).double().mean(dim=0)
        assert float((models - virtual - memory).norm()) <= 1e-6 * float(virtual.norm())
        exchanges.append(crew.workers[0].num_exchanges)
    gaps = [step for step in range(20) if exchanges[step] > (exchanges[step - 1] if step else 0)]
    assert len({b - a for a, b in itertools.pairwise(gaps)}) > 1


def test_post_local_sgd_is_data_parallel_at_first() -> None:
    crew, every = Crew(parse_method("post-local-sgd:switch=4,every=3"), 3), Crew(parse_method("local-sgd:every=1"), 3)
    assert bits(flat(crew.run(4).models[1])) == bits(flat(every.run(4).models[1]))
    assert [worker.num_exchanges for worker in crew.run(5).workers] == [5] * 3


def steps_of(schedule: Schedule, rank: int, last: int) -> list[int]:
    return [step for step in range(1, last + 1) if schedule.due(step, rank)]


def gaps_of(steps: Sequence[int]) -> list[int]:
    return [b - a for a, b in zip([0, *steps], steps, strict=False)]


@pytest.mark.parametrize("most", [1, 2, 5, 16])
def test_random_gaps_are_uniform_and_never_longer(most: int) -> None:
    last = 64 * most * 40
    common = RandomGaps(most, seed=3)
    steps = steps_of(common, 0, last)
    assert steps == steps_of(common, 7, last)
    assert common.workers_agree
    for found in (gaps_of(steps), gaps_of(steps_of(Staggered(most, "random", seed=3), 2, last))):
        assert max(found) <= most
        counts = torch.bincount(torch.tensor(found), minlength=most + 1)[1:].double()
        assert float((counts / counts.mean() - 1).abs().max()) < 0.15
    # A function of the step: in whatever order it is asked.
    assert [common.due(step, 0) for step in reversed(range(1, 200))] == [
        step in steps for step in reversed(range(1, 200))
    ]
    assert most == 1 or steps != steps_of(RandomGaps(most, seed=4), 0, last)


def test_staggered_workers_have_steps_of_their_own() -> None:
    fixed, free = Staggered(5), Staggered(5, "random")
    assert [steps_of(fixed, rank, 12) for rank in (0, 1, 4, 5)] == [[5, 10], [4, 9], [1, 6, 11], [5, 10]]
    assert len({tuple(steps_of(free, rank, 50)) for rank in range(8)}) == 8
    with pytest.raises(ConfigError, match="steps of its own"):
        ModelAveraging(schedule=fixed)
    ModelAveraging(schedule=fixed, exchange=AsynchronousServer(), update=Follow())


@pytest.mark.parametrize(
    ("schedule", "given"),
    [(Every, (0,)), (RandomGaps, (0,)), (Staggered, (0,)), (Staggered, (4, "often"))],
)
def test_schedules_that_cannot_be_are_refused(schedule: Any, given: Any) -> None:
    with pytest.raises(ConfigError):
        schedule(*given)
    with pytest.raises(ConfigError):
        PostLocal(switch=-1, steps=2)


def test_an_outer_step_may_be_late() -> None:
    """With a delay and no mix a worker falls back to the common model, and loses its steps since."""
    crew = Crew(ModelAveraging(schedule=Every(3), update=Outer(), delay=2), 2).run(3)
    before = shared(crew.workers[0]).clone()
    mean = torch.stack([flat(model) for model in crew.models]).mean(dim=0)
    crew.step()
    assert bits(shared(crew.workers[0])) == bits(before)
    crew.step()
    assert near(shared(crew.workers[0]), mean)
    assert all(bits(flat(model)) == bits(shared(crew.workers[0])) for model in crew.models)


def test_a_late_result_survives_an_interruption() -> None:
    def worker_of(model: nn.Module) -> Worker:
        method = parse_method("streaming-diloco:every=2,fragments=2,delay=3")
        return Worker(method, model, OPTIMIZERS["momentum"](model.parameters()), rank=0, size=1, seed=5)

    worker = worker_of(small_model())
    for step in range(9):
        if step == 5:
            state, optimizer = copy.deepcopy(worker.state_dict()), copy.deepcopy(worker.optimizer.state_dict())
            again = worker_of(copy.deepcopy(worker.model))
            again.optimizer.load_state_dict(optimizer)
            again.load_state_dict(state)
            assert state["counters"]["pending"] != [None, None]
        for each in [worker] if step < 5 else [worker, again]:
            backward(each.model, 0, step)
            Simulation(1).run([each.step()])
    assert bits(flat(worker.model)) == bits(flat(again.model))


def springs(momentum: float, nesterov: bool, size: int, every: int = 1) -> None:
    method = parse_method(f"eamsgd:every={every}")

    def optimizer(params: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=3.5, momentum=momentum, nesterov=nesterov)

    Crew(method, size, optimizer)


def test_a_pull_that_leaves_little_to_momentum_is_warned_of() -> None:
    """By themselves heavy-ball steps bear ``lr h`` up to 3.8, tied to a centre of two workers up to 1."""
    with pytest.warns(UserWarning, match=r"below 1(\.0\d*)?; without it that is 3\.8.*Nesterov"):
        springs(0.9, False, size=2)
    for momentum, nesterov, size, every in (
        (0.9, True, 2, 1),
        (0.0, False, 1, 1),
        (0.9, False, 8, 1),
        (0.9, False, 3, 4),
    ):
        springs(momentum, nesterov, size, every)


def test_training_on_springs_grows_where_the_eigenvalues_say_so() -> None:
    """Curvature 1, rate 3.5, momentum .9, three workers: 2e10 after 400 steps; below the limit, at 1.8, not."""
    for lr, grows in ((3.5, True), (1.8, False)):

        def optimizer(params: Any, lr: float = lr) -> torch.optim.Optimizer:
            return torch.optim.SGD(params, lr=lr, momentum=0.9)

        crew = Crew(parse_method("eamsgd:every=1"), 3, optimizer, Bowl)
        for _ in range(400):
            for rank, model in enumerate(crew.models):
                model.zero_grad()
                (0.5 * (model.x - 0.01 * rank).square()).sum().backward()  # type: ignore[union-attr, operator]
            crew.simulation.run([worker.step() for worker in crew.workers])
        largest = max(float(flat(model).abs().max()) for model in crew.models)
        assert (largest > 1e6) == grows
        assert elastic_is_stable(0.3, 0.9, lr_times_curvature=lr, momentum=0.9) != grows


class Bowl(nn.Module):
    """One number, in a loss of curvature 1."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(1))
