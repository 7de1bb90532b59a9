"""What a thread does alone is stated once more, in numpy; what threads do together conserves every addition."""

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.random.philox import random_words
from thinwire.kernels.shared_memory.rows import Loss, Method, Rows, Rule, Select
from thinwire.kernels.shared_memory.shared import Shared
from thinwire.kernels.shared_memory.steps import Part, Span, take_steps
from thinwire.kernels.shared_memory.steps_torch import take_steps_torch
from thinwire.kernels.shared_memory.variants import LOSSLESS, VARIANTS, Variant
from thinwire.random import Key
from thinwire.shared_memory.threads import run_together

NUMEL, NUM = 37, 23
METHODS: list[tuple[Method, Select]] = [
    ("sgd", "top-k"), ("mem-sgd", "top-k"), ("mem-sgd", "random"), ("gspar", "top-k")
]  # fmt: skip
Array = np.ndarray[Any, Any]


def some_rows(density: float = 0.4, regularisation: float = 0.1) -> Rows:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(NUM, NUMEL, generator=generator) * (torch.rand(NUM, NUMEL, generator=generator) < density)
    x[3] = 0  # an example without entries
    labels = torch.where(torch.randn(NUM, generator=generator) > 0, 1.0, -1.0)
    return Rows.dense(x, labels).regularised(regularisation)


def started(numel: int = NUMEL) -> torch.Tensor:
    return torch.randn(numel, generator=torch.Generator().manual_seed(2))


def by_the_formula(rows: Rows, rule: Rule, part: Part, weights: Array, num: int) -> tuple[Array, Array]:
    """The weights and the memory after so many steps, from the definitions."""
    f32 = np.float32
    dense = np.zeros((rows.num, rows.numel), f32)
    for i in range(rows.num):
        own = slice(int(rows.offsets[i]), int(rows.offsets[i + 1]))
        dense[i, rows.indices[own].numpy()] = rows.values[own].numpy()
    longest = max(rule.k, int((dense != 0).sum(axis=1).max()))
    w, memory = weights.copy(), np.zeros(rows.numel, f32)
    for t in range(num):
        i = int(random_words(part.examples, t, 1)) * rows.num >> 32
        (support,) = dense[i].nonzero()
        x, y = dense[i, support], float(rows.labels[i])
        products = w[support].astype(np.float64) * x.astype(np.float64)
        margin = y * (np.cumsum(products)[-1] if len(support) else 0.0)
        slope = f32(-y / (1 + math.exp(margin)) if rule.loss == "logistic" else (-y if margin < 1 else 0.0))
        gradient = slope * x + rows.penalties.numpy()[support] * w[support]
        u = f32(rule.learning_rate) * gradient
        start = t * -(-longest // 4) * 4
        if rule.method == "sgd":
            w[support] -= u
        elif rule.method == "mem-sgd":
            memory[support] += u
            if rule.select == "top-k":
                chosen = np.argsort(-np.abs(memory), kind="stable")[: rule.k]
            else:
                chosen = np.array(subset(random_words(part.entries, start, rule.k).tolist(), rows.numel))
            w[chosen] -= memory[chosen]
            memory[chosen] = 0
        else:
            p = greedy(np.abs(u.astype(np.float64)), rule.k)
            draws = (random_words(part.entries, start, len(support)).numpy() >> 8) / 2.0**24
            kept = draws < p
            w[support[kept]] -= (u[kept].astype(np.float64) / p[kept]).astype(f32)
    return w, memory


def subset(words: list[int], numel: int) -> list[int]:
    """Floyd's algorithm."""
    chosen: list[int] = []
    for word, last in zip(words, range(numel - len(words), numel), strict=True):
        drawn = word * (last + 1) >> 32
        chosen.append(last if drawn in chosen else drawn)
    return chosen


def greedy(magnitudes: Array, k: int) -> Array:
    """Wangni et al. 2018, Alg. 3, sums in order."""
    if np.count_nonzero(magnitudes) <= k:
        return np.where(magnitudes > 0, 1.0, 0.0)
    p: Array = np.minimum(magnitudes * (k / np.cumsum(magnitudes)[-1]), 1)
    for _ in range(2):
        free = p < 1
        c = (k - np.count_nonzero(~free)) / np.cumsum(np.where(free, p, 0))[-1]
        if c <= 1:
            break
        p = np.where(free, np.minimum(c * p, 1), p)
    return p


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize(("method", "select"), METHODS, ids=str)
def test_one_thread_is_the_formula_bit_for_bit_with_every_variant(method: Method, select: Select, loss: Loss) -> None:
    rows = some_rows()
    for k in (1, 5, NUMEL):
        rule = Rule(method=method, select=select, k=k, loss=loss, learning_rate=0.3)
        part = Part.of(Key(4).fold(k), NUMEL)
        weights, memory = by_the_formula(rows, rule, part, started().numpy(), 150)
        outcomes = []
        for variant in VARIANTS:
            shared, part = Shared.around(started()), Part.of(Key(4).fold(k), NUMEL)
            counts = torch.zeros(NUMEL, dtype=torch.int64)
            # In two goes, the second of which begins within a block of four random words.
            first = take_steps(shared, rows, rule, variant, part, Span(num=61), counts)
            second = take_steps(shared, rows, rule, variant, part, Span(first=61, num=89), counts)
            assert np.array_equal(shared.vector.numpy(), weights), variant
            assert np.array_equal(part.memory.numpy(), memory), variant
            assert first[0] + second[0] == 150
            assert int(counts.sum()) == first[1] + second[1]
            assert not shared.locks.any()
            assert not shared.gates.any()
            outcomes.append((first, second, counts.tolist()))
        assert all(outcome == outcomes[0] for outcome in outcomes)


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize(("method", "select"), METHODS, ids=str)
def test_kernel_and_twin_agree(method: Method, select: Select, loss: Loss) -> None:
    rows = some_rows(density=0.8, regularisation=0.0)
    rule = Rule(method=method, select=select, k=4, loss=loss, learning_rate=2.0)
    ends = []
    for take in (take_steps, take_steps_torch):
        shared, part = Shared.around(torch.zeros(NUMEL)), Part.of(Key(5), NUMEL)
        counts = torch.zeros(NUMEL, dtype=torch.int64)
        done = take(shared, rows, rule, "racy", part, Span(first=7, num=90), counts)
        ends.append((done, shared.vector.tolist(), part.memory.tolist(), counts.tolist()))
    assert ends[0] == ends[1]


def test_long_runs_draw_their_examples_from_one_stream() -> None:
    """Across the borders of what is drawn at once."""
    rows, rule = some_rows(), Rule(learning_rate=0.01)
    whole, parts = Shared.around(torch.zeros(NUMEL)), Shared.around(torch.zeros(NUMEL))
    part = Part.of(Key(6), NUMEL)
    take_steps(whole, rows, rule, "racy", part, Span(num=5000))
    for first, end in ((0, 1), (1, 1023), (1023, 2051), (2051, 5000)):
        take_steps(parts, rows, rule, "racy", part, Span(first=first, num=end - first))
    assert torch.equal(whole.vector, parts.vector)


@pytest.mark.parametrize("select", ["top-k", "random"])
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("variant", LOSSLESS)
def test_what_was_sent_and_the_memories_are_all_gradients(variant: Variant, threads: int, select: Select) -> None:
    """In whole numbers, so exactly: each margin is below 1 all the time, and every gradient is minus its example.

    ``weights_end - weights_start - sum of memories = learning_rate * sum of the examples drawn``.
    """
    generator = torch.Generator().manual_seed(8)
    x = torch.randint(0, 4, (NUM, NUMEL), generator=generator).float()
    x[:, 0] = 1  # no example is empty
    rows, rule = Rows.dense(x, torch.ones(NUM)), Rule(method="mem-sgd", select=select, k=3, loss="hinge")
    start, steps = torch.full((NUMEL,), -50_000.0), 400
    shared = Shared.around(start.clone())
    parts = [Part.of(Key(9).fold(thread), NUMEL) for thread in range(threads)]
    counts = torch.zeros(NUMEL, dtype=torch.int64)
    span = Span(num=steps, num_threads=threads)
    take_steps(shared, rows, rule, variant, parts[0], Span(), counts)
    work = [functools.partial(take_steps, shared, rows, rule, variant, part, span, counts) for part in parts]
    done = run_together(shared, work).results
    drawn = torch.cat([(random_words(part.examples, 0, steps) * NUM) >> 32 for part in parts])
    sent = shared.vector - start
    kept = torch.stack([part.memory for part in parts]).sum(dim=0)
    assert torch.equal(sent - kept, x[drawn].sum(dim=0))
    assert int(counts.sum()) == sum(written for _, written in done)


def test_sampled_updates_are_unbiased_and_as_sparse_as_asked() -> None:
    """Each coordinate's mean over 20,000 draws lies within five of its standard deviations of what it stands for."""
    x = torch.tensor([[8.0, -4.0, 2.0, 1.0, -1.0, 0.5, 0.25, 0.0, 3.0]])
    rows, rule = Rows.dense(x, torch.ones(1)), Rule(method="gspar", k=3, learning_rate=0.5)
    numel, num = x.shape[1], 20_000
    total, squares, written = np.zeros(numel), np.zeros(numel), 0
    for draw in range(num):
        shared = Shared.around(torch.zeros(numel))
        written += take_steps(shared, rows, rule, "racy", Part.of(Key(draw), numel), Span(num=1))[1]
        update = shared.vector.double().numpy()
        total += update
        squares += update**2
    mean = total / num
    deviation = np.sqrt(np.maximum(squares / num - mean**2, 0) / num)
    expected = 0.5 * 0.5 * x[0].double().numpy()  # at zero weights the slope is -1/2
    assert (np.abs(mean - expected) <= 5 * deviation + 1e-9).all()
    assert abs(written / num - 3) < 0.05
    assert deviation[0] == 0  # the largest is certain


@pytest.mark.parametrize(("method", "select"), METHODS, ids=str)
def test_numbers_that_are_not_finite_end_no_process(method: Method, select: Select) -> None:
    rows = some_rows()
    for odd in (math.nan, math.inf, -math.inf):
        shared = Shared.around(torch.full((NUMEL,), odd))
        rule = Rule(method=method, select=select, k=4)
        assert take_steps(shared, rows, rule, "fetch-and-add", Part.of(Key(0), NUMEL), Span(num=50))[0] == 50


def test_parts_that_do_not_fit_are_refused() -> None:
    rows, part, shared = some_rows(), Part.of(Key(0), NUMEL), Shared.around(torch.zeros(NUMEL))
    refused: list[tuple[str, Any]] = [
        ("change as many float32, not 5", (Shared.around(torch.zeros(5)), rows, Rule(), "racy", part, Span())),
        ("38 coordinates of 37", (shared, rows, Rule(k=38), "racy", part, Span())),
        ("did you mean racy", (shared, rows, Rule(), "raci", part, Span())),
        ("a memory is a contiguous float32", (shared, rows, Rule(), "racy", Part.of(Key(0), 3), Span())),
        ("no range of steps", (shared, rows, Rule(), "racy", part, Span(num=-1))),
        ("counts are a contiguous int64", (shared, rows, Rule(), "racy", part, Span(), torch.zeros(NUMEL))),
    ]
    for message, arguments in refused:
        for take in (take_steps, take_steps_torch):
            with pytest.raises(ConfigError, match=message):
                take(*arguments)
    for message, changed in (("1 is the least", {"k": 0}), ("above 0", {"learning_rate": 0.0}),
                             ("it takes 'logistic' or 'hinge'", {"loss": "square"})):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            Rule(**changed)


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="neither -1 nor 1"):
        Rows.dense(torch.eye(2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ConfigError, match="do not fit 2 rows"):
        Rows.dense(torch.eye(2), torch.ones(3))
    good = Rows.dense(torch.eye(2), torch.ones(2))
    with pytest.raises(ConfigError, match="outside of the 2 entries"):
        Rows(numel=2, offsets=good.offsets, indices=good.indices + 1, values=good.values, labels=good.labels,
             penalties=good.penalties)  # fmt: skip
    with pytest.raises(ConfigError, match="0 or more"):
        good.regularised(-1.0)
