"""A residual of 16 bits is half as long, owes what it owes on average, and is one as any other in every loop."""

import copy

import pytest
import torch
from method_cases import Crew
from torch import nn

from thinwire.compressors import TopK
from thinwire.layout import Layout, Segments
from thinwire.memory import ErrorFeedback, MomentumCorrection
from thinwire.methods import CATALOG, parse_method, with_residual_dtype
from thinwire.random import Key
from thinwire.worker import needs_server
from thinwire.worker.footprint import remembered_num_bytes

ROWS = [row.name for row in CATALOG if "residual_dtype" in row.options]
LAYOUT = Layout(("w", "b"), (torch.Size([30, 20]), torch.Size([30])))


def test_what_is_owed_and_what_was_sent_are_what_was_given_on_average() -> None:
    """``E[sent + residual] = given`` after 40 exchanges; rounding to nearest would keep half of it back."""
    numel, runs, steps, whole = 64, 512, 40, Segments.whole(64)
    memory = ErrorFeedback(residual_dtype="bf16")
    # Small beside what is owed already: less than half a step of bf16.
    given = torch.full((numel,), 2.0**-11, dtype=torch.float32)
    totals = torch.zeros(runs, numel, dtype=torch.float64)
    nearest = torch.ones(numel, dtype=torch.bfloat16)
    for run in range(runs):
        state = {"residual": torch.ones(numel, dtype=torch.bfloat16)}
        for step in range(steps):
            payload, after = memory.compress(given.clone(), TopK(k=1), Key(run), whole, state)
            state = memory.keep(after, state, Key(run).fold(step))
            totals[run] += payload.to_dense().double()
        totals[run] += state["residual"].double()
    for _ in range(steps):
        nearest = (nearest.float() + given).bfloat16()
    assert bool((nearest == 1.0).all())
    mean, deviation = totals.mean(0), totals.std(0) / runs**0.5
    assert bool(((mean - (1.0 + steps * 2.0**-11)).abs() <= 5 * deviation + 1e-6).all())
    assert float(deviation.max()) < 0.1 * steps * 2.0**-11


@pytest.mark.parametrize("name", ROWS)
def test_it_takes_half_the_bytes_of_a_residual(name: str) -> None:
    method = parse_method(name)
    half = with_residual_dtype(method, "bf16")
    saved = remembered_num_bytes(method, LAYOUT, 1, 4) - remembered_num_bytes(half, LAYOUT, 1, 4)
    assert saved == 2 * LAYOUT.numel


@pytest.mark.parametrize("name", [name for name in ROWS if not needs_server(parse_method(name))])
def test_the_saved_state_is_of_16_bits_and_resumes_bit_for_bit(name: str) -> None:
    options = next(row for row in CATALOG if row.name == name).options
    every = ",every=2" if "every" in options else ""
    soon = ",warmup=1" if "warmup" in options else ""  # nothing is left out before
    method = parse_method(f"{name}:residual_dtype=bf16{every}{soon}{',eps=1' if soon and 'eps' in options else ''}")
    crew = Crew(method, 8)
    for _ in range(4):
        crew.step()
    saved = [copy.deepcopy(worker.state_dict()) for worker in crew.workers]
    models = [copy.deepcopy(model.state_dict()) for model in crew.models]
    everything = [(name, tensor) for state in saved for name, tensor in state["tensors"].items()]
    residuals = [tensor for name, tensor in everything if name.startswith("memory.residual.")]
    assert all(tensor.dtype == torch.bfloat16 for tensor in residuals)
    assert any(bool(tensor.any()) for tensor in residuals)
    resumed = Crew(method, 8)
    resumed.num_steps = crew.num_steps
    for worker, model, state, params in zip(resumed.workers, resumed.models, saved, models, strict=True):
        model.load_state_dict(params)
        worker.load_state_dict(state)
    for each in (crew, resumed):
        for _ in range(4):
            each.step()
    for one, other in zip(crew.models, resumed.models, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    for worker, again in zip(crew.workers, resumed.workers, strict=True):
        mine, theirs = worker.state_dict()["tensors"], again.state_dict()["tensors"]
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("memory", [ErrorFeedback(), MomentumCorrection()], ids=str)
def test_in_full_a_state_is_kept_as_it_is(memory: ErrorFeedback | MomentumCorrection) -> None:
    state, present = memory.init(torch.ones(4)), memory.init(torch.ones(4))
    assert memory.keep(state, present, Key(0)) is state


def test_workers_round_independently() -> None:
    crew = Crew(parse_method("topk:density=20%,every=1,residual_dtype=bf16"), 2, model=lambda: nn.Linear(6, 40))
    drawn = []
    for worker in crew.workers:
        (channel,) = worker.exchanged.channels
        middle = {"residual": torch.full((channel.layout.numel,), 1.0 + 2.0**-8, dtype=torch.float32)}
        key = channel.key.fold("exchange", 0, "rank", worker.rank)
        assert isinstance(channel.method.memory, ErrorFeedback)
        drawn.append(channel.method.memory.keep(middle, channel.memory, key)["residual"] != 1.0)
    assert 0.3 < float((drawn[0] == drawn[1]).float().mean()) < 0.7
