import math
from typing import Any

import numpy as np
import pytest
import torch
from compressor_instances import cases
from torch import Tensor

from thinwire.compressors import Compressor, Identity, RandK, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback, Memory, NoMemory
from thinwire.payloads import Payload, Sparse
from thinwire.random import Key
from thinwire.wire import decode, encode

# The table of the compressor suite: a registered compressor is tested with memory, too.
CASES = cases()
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


@pytest.mark.parametrize("decay", [1.0, 0.95, 0.5])
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


def distance_after(memory: Memory, compressor: Compressor, num_steps: int) -> float:
    """From the minimum of ``||w - 1||^2 / 2``, but for the first coordinate, whose gradient is mostly noise."""
    numel, lr = 10, 0.02
    generator = torch.Generator().manual_seed(4)
    w, state = torch.zeros(numel), memory.init(torch.zeros(numel))
    for step in range(num_steps):
        gradient = w - 1.0
        gradient[0] += 8.0 * torch.randn((), generator=generator)
        sent, state = memory.compress(gradient * lr, compressor, Key(step), Segments.whole(numel), state)
        sent.add_to(w, -1.0)
    return float((w[1:] - 1.0).norm()) / 3.0


def test_one_coordinate_a_step_fails_without_memory_and_reaches_sgd_with_it() -> None:
    """Without, the largest coordinate is nearly always the noisy one; with it the others' turns come."""
    with_memory, without = (distance_after(memory, TopK(k=1), 500) for memory in (ErrorFeedback(), NoMemory()))
    assert distance_after(NoMemory(), Identity(), 500) < 0.001
    assert with_memory < 0.05
    assert without > 0.5
