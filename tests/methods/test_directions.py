"""Optimizers whose momentum is exchanged, against their papers' recursions."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from exchange_cases import Party, vectors_of
from method_cases import Crew, backward, bits, data_parallel, flat, saved, small_model

from thinwire.compressors import SharedSeedRandK
from thinwire.compressors.seeded_rand_k import common_key
from thinwire.errors import ConfigError
from thinwire.exchanges import Context, OrthonormalLines
from thinwire.kernels.sample.subset import random_subset
from thinwire.layout import Layout, Segments
from thinwire.methods import FrozenAdam, FrozenLamb, GradientAveraging, parse_method
from thinwire.random import Key

Array = npt.NDArray[np.float64]
LR, DECAY = 0.02, 0.1


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=LR)


def decaying(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=LR, weight_decay=DECAY)


def steps_of(crew: Crew, num_steps: int) -> Iterator[tuple[Array, Array, Callable[[], Array]]]:
    """At each step the model before it and every worker's gradient; a call makes the step and gives the model."""
    for step in range(num_steps):
        gradients = []
        for rank, model in enumerate(crew.models):
            backward(model, rank, step)
            gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]))

        def stepped() -> Array:
            crew.step()
            assert len({bits(flat(model)) for model in crew.models}) == 1
            return flat(crew.models[0]).double().numpy()

        yield flat(crew.models[0]).double().numpy(), torch.stack(gradients).double().numpy(), stepped


def pieces_of(crew: Crew) -> list[slice]:
    bounds = np.cumsum([0, *(param.numel() for param in crew.models[0].parameters())])
    return [slice(*each) for each in pairwise(bounds.tolist())]


def signs(x: Array, pieces: list[slice]) -> Array:
    """One bit an entry and the mean magnitude of each tensor."""
    found = np.empty_like(x)
    for piece in pieces:
        found[piece] = np.where(x[piece] < 0, -1.0, 1.0) * np.abs(x[piece]).mean()
    return found


@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("route", ["owners", "gather"])
def test_1bit_adam_is_the_recursion_of_its_paper(route: str, correct: bool) -> None:
    size, warmup, beta1, beta2, eps = 3, 12, 0.9, 0.999, 1e-8
    text = f"1bit-adam:warmup={warmup},exchange={route},correct={'yes' if correct else 'no'}"
    crew = Crew(parse_method(text), size, decaying)
    pieces = pieces_of(crew)
    m, v, owner = np.zeros(47), np.zeros(47), np.zeros(47)
    errors = np.zeros((size, 47))
    moved = 0.0
    for number, (x, gradients, stepped) in enumerate(steps_of(crew, 60)):
        if number < warmup:
            mean = gradients.mean(axis=0)
            m, v = beta1 * m + (1 - beta1) * mean, beta2 * v + (1 - beta2) * mean**2
        else:
            intended = beta1 * m + (1 - beta1) * gradients + errors
            sent = np.stack([signs(each, pieces) for each in intended])
            errors = intended - sent
            m = sent.mean(axis=0)
            if route == "owners":
                owner += m
                m = signs(owner, pieces)
                owner -= m
        first, second = (1 - beta1 ** (number + 1), 1 - beta2 ** min(number + 1, warmup)) if correct else (1.0, 1.0)
        expected = x - LR * (m / first / (np.sqrt(v / second) + eps) + DECAY * x)
        found = stepped()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        moved += float(np.abs(found - x).sum())
        assert errors.any() or number < warmup
        assert moved > 0.0
        residuals = np.stack([saved(worker, "memory.residual").double().numpy() for worker in crew.workers])
        np.testing.assert_allclose(residuals, errors, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3])
def test_before_the_variance_is_frozen_it_is_adam_with_decoupled_decay(size: int) -> None:
    crew = Crew(parse_method("1bit-adam:correct=yes"), size, decaying).run(50)
    expected = data_parallel(size, 50, lambda params: torch.optim.AdamW(params, lr=LR, weight_decay=DECAY))
    torch.testing.assert_close(flat(crew.models[0]), expected, rtol=1e-5, atol=2e-6)


def test_1bit_lamb_is_the_recursion_of_its_paper() -> None:
    size, warmup, beta1, beta2, eps = 3, 12, 0.9, 0.999, 1e-8
    crew = Crew(parse_method(f"1bit-lamb:warmup={warmup},exchange=gather"), size, decaying)
    pieces = pieces_of(crew)
    m, v, fresh = np.zeros(47), np.zeros(47), np.zeros(47)
    errors, ratio, factor = np.zeros((size, 47)), np.zeros(4), np.ones(4)
    factors = []
    for number, (x, gradients, stepped) in enumerate(steps_of(crew, 60)):
        before = m
        intended = beta1 * m + (1 - beta1) * gradients + errors
        sent = intended if number < warmup else np.stack([signs(each, pieces) for each in intended])
        errors, m = intended - sent, sent.mean(axis=0)
        squares = ((m - beta1 * before) / (1 - beta1)) ** 2
        fresh = beta2 * fresh + (1 - beta2) * squares
        v = fresh if number < warmup else v
        update = m / (np.sqrt(v) + eps)
        for place, piece in enumerate(pieces):
            if number < warmup:
                now = np.clip(np.linalg.norm(x[piece]) / np.linalg.norm(update[piece]), 0.01, 10.0)
                ratio[place] = 0.9 * ratio[place] + 0.1 * now
            else:
                most = ((np.sqrt(v[piece]) + eps) / (np.sqrt(fresh[piece]) + eps)).max()
                last = factor[place]
                factor[place] = np.clip(np.clip(most, 0.5, 4.0), 0.9 * last, 1.1 * last)
                now = ratio[place] * factor[place]
            update[piece] *= now
        factors.append(factor.copy())
        np.testing.assert_allclose(stepped(), x - LR * (update + DECAY * x), rtol=0, atol=2e-6)
    assert np.ptp(np.stack(factors), axis=0).min() > 0.05  # the factors do something


def test_lamb_without_parameters_is_refused() -> None:
    ctx = context(2, 3)
    with pytest.raises(ConfigError, match="norms of parameters"):
        FrozenLamb().signal(torch.ones(5), ctx, FrozenLamb().init(ctx))


@pytest.mark.parametrize(
    "constants", [{"ratio_beta": 1.0}, {"change": -0.1}, {"least_ratio": 0.0}, {"most_factor": 0.4}]
)
def test_constants_that_are_none_of_lamb_are_refused(constants: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="were given"):
        FrozenLamb(**constants)  # type: ignore[arg-type]


def context(*sizes: int) -> Context:
    layout = Layout(tuple(f"v{n}" for n in range(len(sizes))), tuple(torch.Size([size]) for size in sizes))
    return Context(0, 1, Key(0), Segments.whole(sum(sizes)), 0, layout)


def test_an_entry_without_a_variance_has_no_step() -> None:
    direction, ctx = FrozenAdam(freeze=1), context(3)
    signal, state = direction.signal(torch.tensor([1.0, 0.0, -2.0]), ctx, direction.init(ctx))
    step, state = direction.apply(signal, ctx, state)
    torch.testing.assert_close(step, torch.tensor([0.1, 0.0, -0.1]) / math.sqrt(1e-3), rtol=1e-5, atol=0.0)
    # What one bit says of an entry is never 0; here it has no root to be divided by.
    step, state = direction.apply(torch.tensor([0.5, 0.5, -0.5]), ctx, state)
    assert step[1] == 0.0
    assert step[0] > 0.0 > step[2]


def test_a_parameter_that_joins_later_learns_its_variance_then() -> None:
    direction, ctx = FrozenAdam(freeze=3, beta1=0.5), context(2, 2)
    state = direction.init(ctx)
    for _ in range(5):
        signal, state = direction.signal(torch.tensor([1.0, 2.0, 1.0, 2.0]), ctx, state)
        _, state = direction.apply(signal, ctx, state)
    state = {**state, "age.v1": torch.tensor(0), "variance": state["variance"] * torch.tensor([1.0, 1.0, 0.0, 0.0])}
    before = {name: tensor.clone() for name, tensor in state.items()}
    signal, between = direction.signal(torch.tensor([3.0, 3.0, 3.0, 3.0]), ctx, state)
    _, after = direction.apply(signal, ctx, between)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert torch.equal(after["variance"][:2], before["variance"][:2])
    torch.testing.assert_close(after["variance"][2:], torch.full((2,), 9e-3), rtol=1e-5, atol=0.0)
    assert [int(after[f"age.v{n}"]) for n in range(2)] == [6, 1]


def test_a_layer_that_is_unfrozen_late_steps_by_a_variance_of_its_own() -> None:
    crew = Crew(parse_method("1bit-adam:warmup=4,exchange=gather"), 2, sgd)
    for model in crew.models:
        model.get_parameter("0.weight").requires_grad_(False)
    crew.run(8)
    for model in crew.models:
        model.get_parameter("0.weight").requires_grad_(True)
    before = flat(crew.models[0])
    crew.run(3)
    tensors = crew.workers[0].state_dict()["tensors"]
    ages = {name: int(each) for name, each in tensors.items() if ".direction_age." in name}
    assert sorted(ages.values()) == [3, 11, 11, 11]
    assert tensors["exchange.direction_variance.0.weight"].all()
    # A step is at most 1 / sqrt(1 - beta2) of the rate where the variance is learnt, not 1 / eps.
    assert 0.0 < float((flat(crew.models[0]) - before).abs().max()) < 3 * LR / math.sqrt(1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [("warmup=0", "warm-up|freeze"), ("beta1=-0.5", "beta1"), ("eps=0", "eps"), ("eps=inf", "eps")],
)
def test_constants_that_are_none_of_adam_are_refused(options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_method(f"1bit-adam:{options}")


@pytest.mark.parametrize("step", ["majority", "mean"])
@pytest.mark.parametrize("size", [1, 3])
def test_signed_lion_is_the_recursion_of_its_paper(size: int, step: str) -> None:
    crew = Crew(parse_method(f"signed-lion:step={step},beta1=0.8"), size, decaying)
    momenta = np.zeros((size, 47))
    for x, gradients, stepped in steps_of(crew, 60):
        votes = np.where(0.8 * momenta + 0.2 * gradients < 0, -1.0, 1.0)
        momenta = 0.99 * momenta + 0.01 * gradients
        update = votes.mean(axis=0) if step == "mean" else np.where(votes.sum(axis=0) < 0, -1.0, 1.0)
        np.testing.assert_allclose(stepped(), x - LR * (update + DECAY * x), rtol=0, atol=1e-6)
        kept = np.stack([saved(worker, "memory.momentum").double().numpy() for worker in crew.workers])
        np.testing.assert_allclose(kept, momenta, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("rank", [1, 2])
def test_dion_is_the_recursion_of_its_paper(rank: int, size: int) -> None:
    """Whatever the basis of P and the signs of its columns: the same update and the same momenta."""
    mu = 0.95
    crew = Crew(parse_method(f"dion:rank={rank}"), size, decaying)
    shapes = {0: (5, 6), 2: (2, 5)}
    pieces = pieces_of(crew)
    tensors = crew.workers[0].state_dict()["tensors"]
    starts = {place: tensors[f"exchange.directions.{place}.weight.#0"].double().numpy().T for place in shapes}
    assert [starts[place].shape[1] for place in shapes] == [rank, 1]  # 2 x 5 gains by one direction only
    momenta = np.zeros((size, 47))
    for x, gradients, stepped in steps_of(crew, 60):
        momenta = momenta + gradients
        update = np.sign(momenta.mean(axis=0))
        faded = momenta.copy()
        for place, shape in shapes.items():
            piece = pieces[place]
            each = momenta[:, piece].reshape(size, *shape)
            left = np.linalg.qr(each.mean(axis=0) @ starts[place])[0]
            right = each.mean(axis=0).T @ left
            starts[place] = right / (np.linalg.norm(right, axis=0) + 1e-8)
            update[piece] = math.sqrt(shape[0] / shape[1]) * (left @ starts[place].T).ravel()
            faded[:, piece] = np.stack([left @ left.T @ own for own in each]).reshape(size, -1)
        momenta = momenta - (1 - mu) * faded
        np.testing.assert_allclose(stepped(), x - LR * (update + DECAY * x), rtol=0, atol=2e-5)
        kept = np.stack([saved(worker, "memory.momentum").double().numpy() for worker in crew.workers])
        np.testing.assert_allclose(kept, momenta, rtol=1e-4, atol=2e-5)


def drawn_lines(number: int, place: int, length: int, share: float) -> list[int]:
    """Which lines the exchange of that number takes of the tensor at that place in the layout."""
    key = common_key(Key(5).fold("exchange", number, "rank", 0)).fold("lines", place)
    return random_subset(key.bits64(), length, math.ceil(share * length)).tolist()


@pytest.mark.parametrize("size", [1, 3])
def test_dion2_is_the_recursion_of_its_paper(size: int) -> None:
    mu, share = 0.95, 0.4
    crew = Crew(parse_method(f"dion2:share={share}"), size, decaying)
    shapes = {0: (5, 6), 2: (2, 5)}
    pieces = pieces_of(crew)
    momenta = np.zeros((size, 47))
    seen: set[tuple[int, ...]] = set()
    for number, (x, gradients, stepped) in enumerate(steps_of(crew, 60)):
        momenta = momenta + gradients
        update, faded = np.sign(momenta.mean(axis=0)), momenta.copy()
        for place, shape in shapes.items():
            lines = drawn_lines(number, place, shape[0], share)
            seen.add(tuple(lines) if place == 0 else ())
            each = momenta[:, pieces[place]].reshape(size, *shape)
            chosen = each.mean(axis=0)[lines]
            y = chosen / (np.linalg.norm(chosen) + 1e-7)
            for _ in range(5):
                a = y @ y.T
                y = 3.4445 * y + (-4.775 * a + 2.0315 * a @ a) @ y
            step, kept = np.zeros(shape), np.zeros_like(each)
            step[lines], kept[:, lines] = math.sqrt(shape[0] / shape[1]) * y, each[:, lines]
            update[pieces[place]], faded[:, pieces[place]] = step.ravel(), kept.reshape(size, -1)
        momenta = momenta - (1 - mu) * faded
        np.testing.assert_allclose(stepped(), x - LR * (update + DECAY * x), rtol=0, atol=2e-6)
        memories = np.stack([saved(worker, "memory.momentum").double().numpy() for worker in crew.workers])
        np.testing.assert_allclose(memories, momenta, rtol=1e-5, atol=1e-5)
    assert len(seen) > 5


@pytest.mark.parametrize("shape", [(3, 40), (40, 3), (8, 8)])
def test_lines_of_the_shorter_side_are_nearly_orthonormal_and_their_bytes_a_share(shape: tuple[int, int]) -> None:
    """All singular values of Newton and Schulz's steps are near 1, of whatever scale the momenta are."""
    for scale in (1e-30, 1.0, 1e30):
        crew = Party(GradientAveraging(exchange=OrthonormalLines(0.5)), 2, math.prod(shape), shapes=[shape])
        vectors = [scale * x for x in vectors_of(2, math.prod(shape), 3, heavy=False)]
        aggregate, _ = crew.exchange(vectors)
        count = math.ceil(0.5 * min(shape))
        values = torch.linalg.svdvals(aggregate.mean.view(shape)) / math.sqrt(shape[0] / shape[1])
        assert float(values[:count].min()) > 0.6
        assert float(values[:count].max()) < 1.3
        assert not values[count:].gt(1e-4).any()
        assert aggregate.message_bytes == 4 * (count * max(shape) + 1)
        mean = torch.stack(vectors).mean(dim=0).view(shape)
        lines = aggregate.mean.view(shape).ne(0)
        assert torch.equal(lines.all(dim=1) if shape[0] <= shape[1] else lines.all(dim=0), (
            lines.any(dim=1) if shape[0] <= shape[1] else lines.any(dim=0)
        ))  # fmt: skip
        # Along the mean, as every step of steepest descent is.
        assert float((aggregate.mean.view(shape) * mean)[lines].sum()) > 0.0


def test_a_number_that_is_none_is_told_though_its_line_is_not_drawn() -> None:
    crew = Party(GradientAveraging(exchange=OrthonormalLines(0.1)), 3, 400, shapes=[(20, 20)])
    for place in range(0, 400, 21):
        vectors = vectors_of(3, 400, place)
        vectors[1][place] = math.nan
        for aggregate in crew.exchange(vectors):
            assert not aggregate.finite
            assert torch.isnan(aggregate.mean).nonzero().view(-1).tolist() == [place]


@pytest.mark.parametrize("share", [0.0, 1.5, -0.1])
def test_a_share_of_no_lines_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="lines"):
        OrthonormalLines(share)
    with pytest.raises(ConfigError, match="leave it out"):
        Party(GradientAveraging(compressor=SharedSeedRandK(k=1, shared=True), exchange=OrthonormalLines()), 2, 20)


def test_the_step_of_dion_becomes_the_polar_factor_where_gradients_stay() -> None:
    """Power iteration goes on from step to step: P N^T tends to U V^T, the step of Muon."""
    torch.manual_seed(0)
    left, right = torch.linalg.qr(torch.randn(8, 3))[0], torch.linalg.qr(torch.randn(40, 3))[0]
    slope = (left * torch.tensor([4.0, 2.0, 1.0])) @ right.T
    model = torch.nn.Linear(40, 8, bias=False)
    crew = Crew(parse_method("dion:rank=3"), 1, lambda params: torch.optim.SGD(params, lr=1.0), lambda: model)
    before = model.weight.detach().clone()
    for _ in range(60):
        before = model.weight.detach().clone()
        model.weight.grad = slope.clone()
        crew.simulation.run([crew.workers[0].step()])
    found = (before - model.weight.detach()) / math.sqrt(8 / 40)
    torch.testing.assert_close(found, left @ right.T, rtol=0, atol=1e-4)


def test_what_is_exchanged_takes_the_bytes_of_the_signs() -> None:
    """After the warm-up 1-bit Adam sends a 32nd, and a few bytes for each tensor."""

    def wide() -> torch.nn.Module:
        layer = torch.nn.Linear(512, 64)
        for param in layer.parameters():
            torch.nn.init.zeros_(param)
        return layer

    crew = Crew(parse_method("1bit-adam:warmup=1"), 2, sgd, wide)
    sent = []
    for step in range(3):
        for rank, worker in enumerate(crew.workers):
            generator = torch.Generator().manual_seed(10 * step + rank)
            for param in worker.model.parameters():
                param.grad = torch.randn(param.shape, generator=generator)
        before = crew.workers[0].message_bytes
        crew.simulation.run([worker.step() for worker in crew.workers])
        sent.append(crew.workers[0].message_bytes - before)
    numel = 64 * 513
    assert sent[0] >= 4 * numel
    assert sent[1] == sent[2] <= numel / 8 + 100


def test_the_state_of_a_direction_is_common_and_goes_to_new_workers() -> None:
    four = Crew(parse_method("1bit-adam:warmup=3,exchange=gather"), 4, sgd).run(6)
    states = [worker.state_dict() for worker in four.workers]
    common = [{name: each for name, each in state["tensors"].items() if ".direction_" in name} for state in states]
    assert common[0]
    assert all(torch.equal(each[name], tensor) for each in common for name, tensor in common[0].items())
    two = Crew(parse_method("1bit-adam:warmup=3,exchange=gather"), 2, sgd)
    models = [worker.parameters() for worker in four.workers]
    for worker in two.workers:
        worker.load_resized(states, [{name: p.detach().clone() for name, p in each.items()} for each in models])
        loaded = worker.state_dict()["tensors"]
        assert all(torch.equal(loaded[name], tensor) for name, tensor in common[0].items())
    assert bits(flat(two.models[0])) == bits(flat(four.models[0])) != bits(flat(small_model()))
    two.run(2)
