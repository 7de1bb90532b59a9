"""Memories that hold more than what messages left out."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from thinwire.compressors import QSGD, Compressor, Identity, OneBit, Sign, Threshold, TopK
from thinwire.errors import ConfigError
from thinwire.layout import Segments, State
from thinwire.memory import (
    EF21,
    Change,
    CorrectedChange,
    ErrorControl,
    ErrorFeedback,
    EstimatedMomentum,
    Handed,
    InPlaceMemory,
    LionMomentum,
    LowPass,
    Memory,
    MemorySender,
    Momentum,
    MomentumCorrection,
    MomentumFeedback,
    NoMemory,
    RoundedMemory,
    Shift,
)
from thinwire.payloads import Dense, Levels, Payload, Sparse
from thinwire.random import Key
from thinwire.wire import decode, encode

NUMEL = 120
WHOLE = Segments.whole(NUMEL)
MEMORIES: list[Memory] = [
    NoMemory(),
    ErrorFeedback(),
    ErrorFeedback(decay=0.9),
    ErrorFeedback(residual_dtype="bf16"),
    ErrorFeedback(decay=0.9, residual_dtype="bf16"),
    Momentum(0.9),
    MomentumCorrection(momentum=0.9),
    MomentumCorrection(momentum=0.9, residual_dtype="bf16"),
    MomentumCorrection(momentum=0.5, nesterov=True, factor_masking=False),
    EF21(),
    LionMomentum(0.9, 0.99),
    MomentumFeedback(0.95),
    EstimatedMomentum(EF21(), 0.9),
    ErrorControl(0.2),
    Shift(0.25),
    Change(),
    CorrectedChange(0.25),
    LowPass(0.3),
]
COMPRESSORS = [TopK(k=5), Sign(), QSGD(levels=7, scaled=True), Threshold(density=0.1), OneBit(), Identity()]


def signals(count: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(count)
    for _ in range(count):
        yield torch.randn(NUMEL, generator=generator) * torch.logspace(0, -2, NUMEL)


def copies(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}


def bits(state: State) -> dict[str, bytes]:
    return {name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in state.items()}


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=str)
@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_two_steps_are_one(memory: Memory, compressor: Compressor) -> None:
    """Add, compress, commit: the message and the state of compressing in one go, and the old state is kept."""
    state = memory.init(torch.zeros(NUMEL))
    for step, x in enumerate(signals(5)):
        before = bits(state)
        sent, after = memory.compress(x.clone(), compressor, Key(step), WHOLE, state)
        assert bits(state) == before
        sender = MemorySender(compressor, memory, state)
        intended = sender.add_residual(Handed(x.clone()))
        assert sender.next_state is state
        again = compressor.compress(intended, Key(step), WHOLE)
        sender.commit(again)
        assert torch.equal(encode(again), encode(sent))
        assert sender.next_state is not None
        assert bits(sender.next_state) == bits(after)
        assert bits(state) == before
        # Where it is sure that the message counts, the next state may take the place of this one.
        if isinstance(memory, InPlaceMemory):
            parts = [x[:7].view(1, 7), x[7:]]
            assert bits(memory.take_in(parts, sent, copies(state))) == bits(after)
        # A vector that its owner still has makes the state later.
        kept = Handed(x.clone())
        forgetful = MemorySender(compressor, memory, state, kept=kept)
        forgetful.compress(kept, Key(step), WHOLE)
        assert forgetful.next_state is None
        state = memory.keep(after, state, Key(step)) if isinstance(memory, RoundedMemory) else after


@pytest.mark.parametrize("masking", [True, False])
@pytest.mark.parametrize("nesterov", [True, False])
def test_momentum_correction_is_the_papers_recursion(nesterov: bool, masking: bool) -> None:
    memory = MomentumCorrection(momentum=0.75, nesterov=nesterov, factor_masking=masking)
    state = memory.init(torch.zeros(NUMEL))
    u, v, mu = np.zeros(NUMEL, np.float32), np.zeros(NUMEL, np.float32), np.float32(0.75)
    for step, x in enumerate(signals(25)):
        g = x.numpy()
        if nesterov:
            v = v + g
            u = (u + g) * mu
            v = v + u
        else:
            u = u * mu + g
            v = v + u
        largest = np.argsort(-np.abs(v), kind="stable")[:4]
        message = np.zeros(NUMEL, np.float32)
        message[largest] = v[largest]
        v[largest] = 0
        if masking:
            u[largest] = 0
        sent, state = memory.compress(x.clone(), TopK(k=4), Key(step), WHOLE, state)
        assert np.array_equal(sent.to_dense().numpy(), message)
        assert np.array_equal(state["residual"].numpy(), v)
        assert np.array_equal(state["momentum"].numpy(), u)
    assert np.count_nonzero(u) == (NUMEL - 4 if masking else NUMEL)


@pytest.mark.parametrize(
    ("sent", "stopped"),
    [
        (Sparse(4, torch.tensor([1, 3]), Dense(torch.tensor([2.0, 0.0]))), [1, 3]),
        (Dense(torch.tensor([0.0, 1.0, 0.0, 0.0])), [0, 1, 2, 3]),
        (Levels(torch.tensor([0b10_01_00_01], dtype=torch.uint8), torch.tensor([2.0]), 1, Segments.whole(4)), [1, 3]),
    ],
    ids=["listed entries", "all of a dense vector", "levels that are not 0"],
)
def test_what_is_sent_loses_its_velocity_and_what_decoding_left_out_stays(sent: Payload, stopped: list[int]) -> None:
    memory = MomentumCorrection(momentum=0.5)
    x = torch.tensor([5.0, 6.0, 7.0, 8.0])
    _, unsent = memory.add_residual(x.clone(), memory.init(torch.zeros(4)))
    state = memory.commit(sent, unsent)
    assert torch.equal(state["residual"], x - decode(encode(sent)).to_dense())
    assert state["momentum"].eq(0).nonzero().view(-1).tolist() == stopped


def test_signum_sends_the_sign_of_a_running_mean() -> None:
    memory = Momentum(0.75)
    state = memory.init(torch.zeros(NUMEL))
    mean = np.zeros(NUMEL, np.float32)
    for step, x in enumerate(signals(10)):
        mean = np.float32(0.25) * x.numpy() + np.float32(0.75) * mean
        sent, state = memory.compress(x.clone(), Sign(), Key(step), WHOLE, state)
        assert np.array_equal(state["momentum"].numpy(), mean)
        assert np.array_equal(sent.to_dense().numpy() < 0, mean < 0)


def test_lion_sends_the_sign_of_one_mean_and_keeps_another() -> None:
    memory = LionMomentum(0.5, 0.75)
    state = memory.init(torch.zeros(NUMEL))
    mean = np.zeros(NUMEL, np.float32)
    for step, x in enumerate(signals(10)):
        wanted = np.float32(0.5) * x.numpy() + np.float32(0.5) * mean
        mean = np.float32(0.25) * x.numpy() + np.float32(0.75) * mean
        sent, state = memory.compress(x.clone(), Sign(), Key(step), WHOLE, state)
        assert np.array_equal(state["momentum"].numpy(), mean)
        assert np.array_equal(sent.to_dense().numpy() < 0, wanted < 0)


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.75])
def test_a_share_of_what_receivers_decoded_leaves_the_momentum(compressor: Compressor, momentum: float) -> None:
    """What came in is what is kept and the share that faded; with no momentum it is error feedback."""
    memory, plain = MomentumFeedback(momentum), ErrorFeedback()
    state, residual = memory.init(torch.zeros(NUMEL)), plain.init(torch.zeros(NUMEL))
    given = faded = torch.zeros(NUMEL, dtype=torch.float64)
    for step, x in enumerate(signals(10)):
        given = given + x.double()
        sent, state = memory.compress(x.clone(), compressor, Key(step), WHOLE, state)
        faded = faded + (1.0 - momentum) * decode(encode(sent)).to_dense().double()
        torch.testing.assert_close(state["momentum"].double() + faded, given, rtol=1e-5, atol=1e-5)
        _, residual = plain.compress(x.clone(), compressor, Key(step), WHOLE, residual)
        if momentum == 0.0:
            torch.testing.assert_close(state["momentum"], residual["residual"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=str)
def test_the_estimate_is_the_sum_of_what_receivers_decoded(compressor: Compressor) -> None:
    memory = EF21()
    state = memory.init(torch.zeros(NUMEL))
    heard = torch.zeros(NUMEL)
    errors = []
    (x,) = signals(1)
    for step in range(60):
        sent, state = memory.compress(x.clone(), compressor, Key(step), WHOLE, state)
        heard += decode(encode(sent)).to_dense()
        assert torch.equal(state["estimate"], heard)
        errors.append(float((x - heard).norm() / x.norm()))
    # Of a vector that does not change nothing is missing in the end: the error falls by 1 - gamma at each message.
    assert errors[0] < 1.0
    assert errors[-1] < (1e-6 if not isinstance(compressor, OneBit | Sign) else 0.2 * errors[0] + 1e-6)


def test_what_memories_promise() -> None:
    contractions = {type(memory).__name__: memory.needs_contraction for memory in MEMORIES}
    assert contractions == {
        "NoMemory": False, "ErrorFeedback": True, "Momentum": False, "MomentumCorrection": True, "EF21": True,
        "LionMomentum": False, "MomentumFeedback": True,
        "EstimatedMomentum": True, "ErrorControl": True, "Shift": False, "Change": False, "CorrectedChange": False,
        "LowPass": True,
    }  # fmt: skip
    keepers = {type(memory).__name__ for memory in MEMORIES if memory.keeps_only_losses}
    assert keepers == {"NoMemory", "ErrorFeedback", "MomentumCorrection", "LowPass"}
    assert not MomentumCorrection(momentum=0.5, factor_masking=False).keeps_only_losses
    for memory in MEMORIES:
        if memory.keeps_only_losses:
            state = memory.init(torch.zeros(NUMEL))
            for step, x in enumerate(signals(3)):
                sent, state = memory.compress(x.clone(), Identity(), Key(step), WHOLE, state)
                assert torch.equal(sent.to_dense(), x)


@pytest.mark.parametrize("momentum", [1.0, -0.1, math.nan])
def test_a_momentum_out_of_range_is_refused(momentum: float) -> None:
    for kind in (Momentum, MomentumCorrection, MomentumFeedback):
        with pytest.raises(ConfigError, match="momentum"):
            kind(momentum=momentum)
    for betas in ((momentum, 0.9), (0.9, momentum)):
        with pytest.raises(ConfigError, match="running mean"):
            LionMomentum(*betas)
    with pytest.raises(ConfigError, match="nesterov"):
        MomentumCorrection(momentum=0.0, nesterov=True)
