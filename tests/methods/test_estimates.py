"""Methods whose messages are changes: the recursions of their papers in numpy, and the laws of their parts."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from exchange_cases import Party
from numpy.typing import NDArray

from thinwire.compressors import RandK, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import Accumulating, Gather
from thinwire.layout import Layout, Segments
from thinwire.memory import EF21, Change, CorrectedChange, ErrorControl, ErrorFeedback, EstimatedMomentum, Shift
from thinwire.methods import GradientAveraging, fitted, parse_method
from thinwire.random import Key

NUMEL, SIZE, LR, SEED = 24, 3, 0.05, 3
Vector = NDArray[np.float64]
Operator = Callable[[Vector, int, int], Vector]
"""What becomes of a vector of a worker (-1: of the server) in an exchange."""
GENERATOR = np.random.default_rng(7)
CURVATURES = GENERATOR.uniform(0.2, 1.5, (SIZE, NUMEL))
CENTRES = GENERATOR.normal(size=(SIZE, NUMEL))
NOISE = GENERATOR.normal(size=(80, SIZE, NUMEL)) * 0.1


def mean(vectors: Vector) -> Vector:
    found: Vector = vectors.mean(axis=0)
    return found


def gradient(x: Vector, rank: int, step: int) -> Vector:
    """Of a quadratic of the worker's own, with noise that depends on the step."""
    found: Vector = CURVATURES[rank] * (x - CENTRES[rank]) + NOISE[step, rank]
    return found


def top(k: int) -> Operator:
    def compress(x: Vector, rank: int, number: int) -> Vector:
        kept = np.argsort(-np.abs(x), kind="stable")[:k]
        out = np.zeros_like(x)
        out[kept] = x[kept]
        return out

    return compress


def rand(k: int) -> Operator:
    """The support that the worker draws too: it depends on the key alone."""

    def compress(x: Vector, rank: int, number: int) -> Vector:
        key = Key(SEED).fold("exchange", number, "rank", rank)
        drawn = RandK(k=k, unbiased=True).compress(torch.ones(NUMEL), key, Segments.whole(NUMEL)).to_dense()
        found: Vector = x * drawn.double().numpy()
        return found

    return compress


def draws(number: int, probability: float) -> bool:
    """The coin that all have in common."""
    return Key(SEED, ("exchange", number, "restart")).bits64() / 2**64 < probability


@dataclass
class State:
    """What the papers' workers and their server hold; zeros at first."""

    own: dict[str, Vector] = field(default_factory=dict)
    common: Vector = field(default_factory=lambda: np.zeros(NUMEL))
    server: Vector = field(default_factory=lambda: np.zeros(NUMEL))

    def __getitem__(self, name: str) -> Vector:
        return self.own.setdefault(name, np.zeros((SIZE, NUMEL)))


Recursion = Callable[[State, Vector, int], Vector]
"""What all step by, from the workers' gradients ``[P, d]`` in an exchange."""


def ef21(state: State, grads: Vector, number: int) -> Vector:
    g = state["g"]
    for i in range(SIZE):
        g[i] += top(3)(grads[i] - g[i], i, number)
    return mean(g)


def ef21_plus(state: State, grads: Vector, number: int) -> Vector:
    g = state["g"]
    for i in range(SIZE):
        b, m = top(3)(grads[i], i, number), g[i] + top(3)(grads[i] - g[i], i, number)
        g[i] = b if np.linalg.norm(b - grads[i]) <= np.linalg.norm(m - grads[i]) else m
    return mean(g)


def ef21_sgdm(state: State, grads: Vector, number: int) -> Vector:
    v, g, eta = state["v"], state["g"], 0.2
    for i in range(SIZE):
        v[i] = (1 - eta) * v[i] + eta * grads[i] if number else grads[i]
        g[i] += top(3)(v[i] - g[i], i, number)
    return mean(g)


def ef21_bc(state: State, grads: Vector, number: int) -> Vector:
    state.server = ef21(state, grads, number)
    state.common = state.common + top(3)(state.server - state.common, -1, number)
    return state.common


def econtrol(state: State, grads: Vector, number: int) -> Vector:
    e, h, eta = state["e"], state["h"], 0.25
    for i in range(SIZE):
        if number == 0:
            h[i] = grads[i]
            continue
        delta = top(3)(eta * e[i] + grads[i] - h[i], i, number)
        e[i] += grads[i] - h[i] - delta
        h[i] += delta
    return mean(h)


def diana(state: State, grads: Vector, number: int) -> Vector:
    h, alpha = state["h"], 6 / NUMEL
    m = np.stack([rand(6)(grads[i] - h[i], i, number) for i in range(SIZE)])
    g = h.mean(axis=0) + m.mean(axis=0)
    h += alpha * m
    found: Vector = g
    return found


def marina(state: State, grads: Vector, number: int) -> Vector:
    before = state["before"]
    if number == 0 or draws(number, 0.25):
        state.common = grads.mean(axis=0)
    else:
        q = [rand(6)(grads[i] - before[i], i, number) for i in range(SIZE)]
        state.common = state.common + np.mean(q, axis=0)
    before[:] = grads
    return state.common


def dasha(state: State, grads: Vector, number: int) -> Vector:
    h, g, a = state["h"], state["g"], 1 / (2 * (NUMEL / 6 - 1) + 1)
    for i in range(SIZE):
        if number == 0:
            g[i] = grads[i]
        else:
            g[i] += rand(6)(grads[i] - h[i] - a * (g[i] - h[i]), i, number)
        h[i] = grads[i]
    return mean(g)


@pytest.mark.parametrize(
    ("text", "recursion"),
    [
        ("ef21:k=3", ef21),
        ("ef21-plus:k=3", ef21_plus),
        ("ef21-plus:k=3,exchange=server", ef21_plus),
        ("ef21-sgdm:k=3,momentum=0.8", ef21_sgdm),
        ("ef21-sgdm:k=3,momentum=0.8,exchange=server", ef21_sgdm),
        ("ef21-bc:k=3", ef21_bc),
        ("econtrol:k=3,feedback=0.25", econtrol),
        ("diana:k=6", diana),
        ("diana:k=6,exchange=server", diana),
        ("marina:k=6", marina),
        ("dasha:k=6", dasha),
    ],
)
def test_the_steps_are_those_of_the_paper(text: str, recursion: Recursion) -> None:
    """80 steps on quadratics that differ between workers, by the messages that workers send."""
    crew, state = Party(parse_method(text), SIZE, NUMEL, SEED), State()
    x = x_paper = np.zeros(NUMEL)
    restarted = 0
    for step in range(80):
        number = crew.num_exchanges
        compressor = crew.method.compressor_at(number)
        restarted += draws(number, 0.25)
        vectors = [torch.tensor(gradient(x, rank, step), dtype=torch.float32) for rank in range(SIZE)]
        programs = [
            crew.channels[rank].run(crew.channels[rank].gather([vectors[rank]])[0], compressor, True, number)
            for rank in range(SIZE)
        ]
        outcomes = crew.simulation.run(programs)
        for channel, outcome in zip(crew.channels, outcomes, strict=True):
            channel.accept(outcome)
        crew.num_exchanges += 1
        direction = recursion(state, np.stack([gradient(x_paper, rank, step) for rank in range(SIZE)]), number)
        found = outcomes[0].aggregate.mean.double().numpy()
        assert np.abs(found - direction).max() <= 1e-6 * max(1.0, np.abs(direction).max()), step
        x, x_paper = x - LR * found, x_paper - LR * direction
    assert 10 < restarted < 35


def test_a_shift_nears_its_vector_by_exactly_its_rate() -> None:
    """``E||x - h - rate Q(x - h)||^2 = (1 - rate) ||x - h||^2`` for random-k at ``1 / (1 + omega)``."""
    operator, whole = RandK(k=5, unbiased=True), Segments.whole(20)
    memory = Shift().tuned(operator.traits(20))
    assert memory.rate == 0.25
    x = torch.randn(20, generator=torch.Generator().manual_seed(0))
    start = {"estimate": torch.randn(20, generator=torch.Generator().manual_seed(1))}
    before = float((x - start["estimate"]).square().sum())
    after, sent = [], []
    for draw in range(4000):
        payload, state = memory.compress(x.clone(), operator, Key(draw), whole, start)
        after.append(float((x - state["estimate"]).square().sum()) / before)
        sent.append(start["estimate"] + payload.to_dense())
    spread = np.std(after) / math.sqrt(len(after))
    assert abs(np.mean(after) - 0.75) < 4 * spread < 0.02
    # And what the receivers go on with is unbiased, coordinate by coordinate.
    each = torch.stack(sent).double()
    assert bool(((each.mean(dim=0) - x).abs() < 5 * each.std(dim=0) / math.sqrt(4000)).all())


@pytest.mark.parametrize("text", ["diana:density=25%", "dasha:density=25%", "marina:density=25%"])
def test_estimates_of_unbiased_messages_are_right_on_average(text: str) -> None:
    """Two exchanges of vectors that change: the mean over draws is the workers' mean."""
    vectors = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(2))
    results = []
    for seed in range(400):
        crew = Party(parse_method(text), 3, 16, seed)
        for step in range(2):
            (found, *_) = crew.exchange(list(vectors[step]))
        results.append(found.mean.double())
    each = torch.stack(results)
    off = (each.mean(dim=0) - vectors[1].double().mean(dim=0)).abs()
    assert bool((off <= 5 * each.std(dim=0) / math.sqrt(len(each)) + 1e-6).all())


@pytest.mark.parametrize(
    "text", ["ef21-sgdm:k=2", "econtrol:k=2", "dasha:k=4", "diana:k=4", "diana:levels=3", "ef21:k=2"]
)
def test_what_all_add_up_is_the_mean_of_the_workers_estimates(text: str) -> None:
    crew = Party(parse_method(text), 4, 16)
    generator = torch.Generator().manual_seed(3)
    for _ in range(25):
        crew.exchange(list(torch.randn(4, 16, generator=generator)))
        estimates = torch.stack([channel.memory["estimate"] for channel in crew.channels])
        for channel in crew.channels:
            torch.testing.assert_close(channel.exchange["estimate"], estimates.mean(dim=0), rtol=1e-5, atol=1e-5)


def test_rates_are_the_compressors() -> None:
    layout = Layout(("w",), (torch.Size([100]),))

    def memory_of(text: str) -> object:
        return fitted(parse_method(text), layout)[0].memory

    assert memory_of("diana:k=20") == Shift(0.2)
    assert memory_of("diana:k=20,rate=0.1") == Shift(0.1)
    assert memory_of("dasha:k=20") == CorrectedChange(1 / 9)
    assert memory_of("econtrol:k=25") == ErrorControl(0.25)
    exchange = fitted(parse_method("marina:k=20"), layout)[0].exchange
    assert exchange == Accumulating(Gather(), restart=0.2)
    again = fitted(fitted(parse_method("diana:levels=1"), layout)[0], layout)[0]
    assert again == fitted(parse_method("diana:levels=1"), layout)[0]


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"memory": EF21(), "exchange": Gather()}, "sends changes"),
        ({"memory": Shift(0.5), "exchange": Gather()}, "sends changes"),
        ({"memory": ErrorFeedback(), "exchange": Accumulating()}, "sends changes"),
        ({"memory": Shift(0.5), "exchange": Accumulating()}, "the same rate"),
        ({"memory": Shift(), "exchange": Accumulating(rate=0.5)}, "the same rate"),
        ({"memory": EF21(), "exchange": Accumulating(rate=0.5)}, "the same rate"),
        ({"memory": EF21(), "exchange": Accumulating(restart=0.5)}, "leave out restart"),
        ({"memory": EstimatedMomentum(Change(), 0.5), "exchange": Accumulating(restart=None)}, "leave out restart"),
        ({"memory": Shift(0.5), "exchange": Accumulating(rate=0.5), "reset_memory": True}, "must not be reset"),
    ],
)
def test_parts_that_do_not_have_one_estimate_are_refused(parts: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        GradientAveraging(compressor=TopK(k=1), **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", [Shift(), Change(), CorrectedChange()])
def test_biased_messages_have_no_shift_to_learn(memory: Shift | Change | CorrectedChange) -> None:
    rate = None if isinstance(memory, Shift) else 1.0
    method = GradientAveraging(memory=memory, compressor=TopK(k=1), exchange=Accumulating(rate=rate))
    with pytest.raises(ConfigError, match="unbiased"):
        fitted(method, Layout(("w",), (torch.Size([5]),)))


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.5, math.nan])
def test_numbers_out_of_range_are_refused(rate: float) -> None:
    for make in (Shift, CorrectedChange, ErrorControl):
        with pytest.raises(ConfigError, match="at most 1"):
            make(rate)
    with pytest.raises(ConfigError, match="at most 1"):
        Accumulating(rate=rate)
    with pytest.raises(ConfigError, match="probability"):
        Accumulating(restart=rate - 1.0 if rate == 0.0 else rate)
    with pytest.raises(ConfigError, match="below 1"):
        EstimatedMomentum(EF21(), rate - 1.0 if rate == 0.0 else rate)


def test_a_part_that_was_not_tuned_says_so() -> None:
    for memory in (Shift(), CorrectedChange(), ErrorControl()):
        with pytest.raises(ConfigError, match="no rate yet"):
            memory.compress(torch.ones(2), TopK(k=1), Key(0), Segments.whole(2), memory.init(torch.zeros(2)))
