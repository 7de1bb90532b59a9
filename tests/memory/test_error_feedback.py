import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from thinwire.compressors import Compressor, Identity, RandK, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback, NoMemory
from thinwire.payloads import Payload, Sparse
from thinwire.random import Key
from thinwire.wire import decode, encode

# The table of the compressor suite: a registered compressor is tested with memory, too.
CASES = runpy.run_path(str(Path(__file__).parents[1] / "compressors" / "conftest.py"))["cases"]()
NUMEL = 200


def bits(x: Tensor) -> bytes:
    return x.numpy().tobytes()


def signals(count: int, numel: int = NUMEL) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, numel, generator=generator) * torch.logspace(0, -3, numel)


def send(
    memory: ErrorFeedback, state: dict[str, Tensor], compressor: Compressor, x: Tensor, step: int
) -> tuple[Tensor, Payload]:
    """One step as a worker does it, ``state`` changed: what was to be sent, and what the receivers decode."""
    compensated = memory.decay * state["residual"] + x
    before = bits(state["residual"])
    sent, after = memory.compress(x.clone(), compressor, Key(3).fold(step), Segments.whole(x.numel()), state)
    assert bits(state["residual"]) == before
    state.update(after)
    return compensated, decode(encode(sent))


@pytest.mark.parametrize("compressor", CASES, ids=str)
def test_what_is_compensated_is_what_is_sent_and_what_is_kept(compressor: Any) -> None:
    memory = ErrorFeedback()
    state = memory.init(torch.zeros(NUMEL))
    total_in, total_sent = np.zeros(NUMEL), np.zeros(NUMEL)
    largest = np.zeros(NUMEL)
    for step, x in enumerate(signals(12)):
        compensated, sent = send(memory, state, compressor, x, step)
        dense, residual = sent.to_dense(), state["residual"]
        # One rounding of one subtraction: the f64 difference, rounded.
        exact = compensated.double() - dense.double()
        assert bits(residual) == bits(exact.to(torch.float32))
        scale = torch.maximum(compensated.abs(), torch.maximum(dense.abs(), residual.abs())).double()
        ulp = (scale * 2.0**-23).clamp_min(2.0**-149)
        assert bool(((dense.double() + residual.double() - compensated.double()).abs() <= ulp).all())
        total_in += x.double().numpy()
        total_sent += dense.double().numpy()
        largest = np.maximum(largest, scale.numpy())
    # Over 12 steps: the roundings of an addition and of a subtraction each.
    drift = np.abs(total_sent + state["residual"].double().numpy() - total_in)
    assert (drift <= 24 * 2.0**-23 * largest + 1e-40).all()


@pytest.mark.parametrize(
    "compressor", [TopK(k=7), TopK(density=0.3), TopK(k=0.5), RandK(k=7), TopK(k=NUMEL), Identity()]
)
def test_exact_coordinates_leave_nothing_behind(compressor: Any) -> None:
    memory = ErrorFeedback()
    state = memory.init(torch.zeros(NUMEL))
    for step, x in enumerate(signals(10)):
        compensated, sent = send(memory, state, compressor, x, step)
        assert bits(sent.to_dense() + state["residual"]) == bits(compensated + 0.0)
        assert bool(((sent.to_dense() == 0) | (state["residual"] == 0)).all())
    if not isinstance(compressor, TopK | RandK) or compressor.k == NUMEL:
        assert not state["residual"].any()


@pytest.mark.parametrize("compressor", [case for case in CASES if isinstance(case, TopK | RandK)], ids=str)
def test_only_the_entries_sent_change_when_the_message_is_accounted_for(compressor: Any) -> None:
    memory = ErrorFeedback()
    state = memory.init(torch.zeros(NUMEL))
    for step, x in enumerate(signals(4)):
        compensated, sent = send(memory, state, compressor, x, step)
        assert isinstance(sent, Sparse)
        untouched = torch.ones(NUMEL, dtype=torch.bool)
        untouched[sent.indices] = False
        assert bits(state["residual"][untouched]) == bits(compensated[untouched])


@pytest.mark.parametrize("compressor", CASES, ids=str)
@pytest.mark.parametrize("segments", [Segments.whole(NUMEL), Segments.of_sizes([50, 0, 130, 20])], ids=["whole", "cut"])
@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_the_memory_does_what_its_three_steps_do(compressor: Any, segments: Segments, decay: float) -> None:
    """Add, compress, subtract: in one pass or apart, bit for bit, and the next residual is the memory of x."""
    memory = ErrorFeedback(decay=decay)
    state = memory.init(torch.zeros(NUMEL))
    state["residual"].copy_(signals(3)[2])
    for step, x in enumerate(signals(3)):
        apart = state["residual"] * torch.tensor(decay) + x if decay != 1.0 else state["residual"] + x
        expected = compressor.compress(apart, Key(step), segments)
        expected.add_to(apart, -1.0)
        old, mine = state["residual"].clone(), x.clone()
        sent, after = memory.compress(mine, compressor, Key(step), segments, state)
        assert after["residual"].data_ptr() == mine.data_ptr()
        assert bits(state["residual"]) == bits(old)
        assert bits(encode(sent)) == bits(encode(expected))
        assert bits(after["residual"]) == bits(apart)
        state = after


@pytest.mark.parametrize("decay", [0.95, 0.5])
def test_the_residual_decays_before_the_signal_is_added(decay: float) -> None:
    memory, compressor = ErrorFeedback(decay=decay), TopK(k=1)
    state = memory.init(torch.zeros(NUMEL))
    expected = np.zeros(NUMEL, np.float32)
    for step, x in enumerate(signals(20)):
        send(memory, state, compressor, x, step)
        expected = expected * np.float32(decay) + x.numpy()
        expected[np.abs(expected).argmax()] = 0.0
        assert np.array_equal(state["residual"].numpy(), expected)


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.01, math.nan])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match="decay"):
        ErrorFeedback(decay=decay)


def test_no_memory_keeps_nothing() -> None:
    memory, x = NoMemory(), signals(1)[0]
    state = memory.init(torch.zeros(NUMEL))
    assert state == {}
    before = bits(x)
    sent, after = memory.compress(x, TopK(k=1), Key(0), Segments.whole(NUMEL), state)
    assert after == {}
    assert bits(x) == before
    assert bits(sent.to_dense()) == bits(TopK(k=1).compress(x, Key(0), Segments.whole(NUMEL)).to_dense())
    assert not memory.needs_contraction
    assert ErrorFeedback().needs_contraction


@pytest.mark.parametrize(
    "compressor", [TopK(k=1), RandK(k=1), TopK(k=0.2), RandK(k=0.2), Sign(), TopK(k=5, values=Sign())]
)
def test_the_memory_stays_within_the_bound_of_mem_sgd(compressor: Any) -> None:
    """E||m||^2 <= eta^2 4 alpha/(alpha - 4) G^2/gamma^2; eta = 8/(mu (a + t)), a = (alpha + 2)/gamma, alpha = 5."""
    numel, num_steps, num_runs = 20, 300, 4
    gamma = compressor.traits(numel).gamma
    shift = 7.0 / gamma
    memory = ErrorFeedback()
    generator = torch.Generator().manual_seed(1)
    squares = np.zeros(num_steps)
    for run in range(num_runs):
        state = memory.init(torch.zeros(numel))
        for step in range(num_steps):
            gradient = torch.randn(numel, generator=generator)
            gradient /= gradient.norm()  # G = 1
            x = gradient * (8.0 / (shift + step))
            _, state = memory.compress(x, compressor, Key(run).fold(step), Segments.whole(numel), state)
            squares[step] += float(state["residual"].square().sum()) / num_runs
    eta = 8.0 / (shift + np.arange(num_steps))
    assert (squares <= eta**2 * 20.0 / gamma**2).all()
    assert squares[-1] > 0


def test_one_coordinate_where_signs_need_memory() -> None:
    """f(x) = x/4 on [-1, 1] with gradients 4 (probability 1/4) and -1: signs drift to +1, with memory to -1."""
    generator = np.random.default_rng(0)
    memory, eta, num_steps = ErrorFeedback(), 0.01, 4000
    state = memory.init(torch.zeros(1))
    plain = remembered = 0.0
    for step in range(num_steps):
        gradient = 4.0 if generator.random() < 0.25 else -1.0
        x = torch.tensor([eta * gradient])
        plain = float(np.clip(plain - eta * np.sign(gradient), -1, 1))
        sent, state = memory.compress(x, Sign(), Key(step), Segments.whole(1), state)
        remembered = float(np.clip(remembered - float(sent.to_dense()), -1, 1))
    assert plain > 0.8
    assert remembered < -0.8


def logistic_descent(kind: str, num_steps: int = 60_000) -> float:
    """Suboptimality of the weighted mean iterate after steps eta = 2/(lambda (t + a)) on n = 2000, d = 50."""
    numel, count = 50, 2000
    generator = np.random.default_rng(0)
    features = generator.standard_normal((count, numel))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    margins = features @ generator.standard_normal(numel) * 3.0
    features *= np.where(generator.random(count) < 1 / (1 + np.exp(-margins)), 1.0, -1.0)[:, None]
    decay = 1.0 / count

    def loss(w: np.ndarray[Any, Any]) -> float:
        return float(np.logaddexp(0, -features @ w).mean() + decay / 2 * w @ w)

    best = np.zeros(numel)
    for _ in range(30):  # Newton
        p = 1 / (1 + np.exp(features @ best))
        hessian = (features * (p * (1 - p))[:, None]).T @ features / count + decay * np.eye(numel)
        best -= np.linalg.solve(hessian, decay * best - features.T @ p / count)

    shift = float(numel) if kind != "sgd" else 1.0
    order = generator.integers(count, size=num_steps)
    w, residual, mean = np.zeros(numel), np.zeros(numel), np.zeros(numel)
    for t in range(num_steps):
        row = features[order[t]]
        u = (decay * w - row / (1 + math.exp(min(float(row @ w), 500.0)))) * (2 / (decay * (t + shift)))
        if kind == "memory":
            u += residual
        sent = u
        if kind != "sgd":
            sent = np.zeros(numel)
            place = np.abs(u).argmax()
            sent[place] = u[place]
            residual = u - sent
        w = w - sent
        rate = 6 * (t + shift) ** 2 / ((1 + t) * (6 * shift**2 + t + 6 * shift * t + 2 * t * t))
        mean += rate * (w - mean)
    return loss(mean) - loss(best)


def test_one_coordinate_a_step_fails_without_memory_and_reaches_sgd_with_it() -> None:
    with_memory, without, sgd = (logistic_descent(kind) for kind in ("memory", "none", "sgd"))
    assert sgd > 0
    assert 0 < with_memory < 1.5 * sgd
    assert without > 50 * with_memory, (with_memory, without, sgd)


def test_the_descent_above_uses_what_the_parts_compute() -> None:
    """The lean loop's message and residual are those of TopK(k=1) under ErrorFeedback."""
    memory = ErrorFeedback()
    state = memory.init(torch.zeros(50))
    residual = np.zeros(50, np.float32)
    for step, x in enumerate(signals(50, 50)):
        _, sent = send(memory, state, TopK(k=1), x, step)
        u = x.numpy() + residual
        message = np.zeros(50, np.float32)
        message[np.abs(u).argmax()] = u[np.abs(u).argmax()]
        residual = u - message
        assert np.array_equal(sent.to_dense().numpy(), message)
        assert np.array_equal(state["residual"].numpy(), residual)
