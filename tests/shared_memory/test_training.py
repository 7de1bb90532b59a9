"""Training with threads: the loss falls, one thread is the same with every variant, what is asked for is checked."""

import dataclasses
import json
import math
from typing import Any

import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.shared_memory.rows import Loss, Method, Rows
from thinwire.shared_memory import (
    TASKS,
    VARIANTS,
    ContestResult,
    Examples,
    Plan,
    Result,
    Settings,
    Variant,
    load_examples,
    measure,
    objective,
    train,
)


def small(density: float = 0.2) -> Examples:
    return load_examples("sparse", numel=60, examples=80, density=density, seed=3)


def outcome(result: Result) -> Any:
    """What does not depend on time."""
    return [(point.updates, point.loss) for point in result.losses], result.writes, result.counted, result.lost


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize("method", ["sgd", "mem-sgd", "gspar"])
def test_one_thread_is_the_same_with_every_variant(method: Method, loss: Loss) -> None:
    settings = Settings(threads=1, method=method, loss=loss, keep=0.1, updates=2000, learning_rate=0.2)
    found = [outcome(train(small(), dataclasses.replace(settings, variant=variant))) for variant in VARIANTS]
    assert all(each == found[0] for each in found)
    assert found[0][0][-1][1] < found[0][0][0][1]
    assert found[0][3] == 0


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_threads_learn_and_take_every_step(variant: Variant, threads: int) -> None:
    settings = Settings(variant=variant, threads=threads, updates=4003, rounds=3)
    result = train(small(), settings)
    assert [point.updates for point in result.losses] == [0, 1334, 2668, 4003]
    assert result.loss < 0.9 * result.losses[0].loss
    assert result.lost == 0 if variant != "racy" else 0 <= result.lost <= result.counted
    assert result.cores > 0
    assert result.updates_per_s > 0


def test_steps_of_rounds_and_threads_add_up() -> None:
    for threads, updates, rounds in ((1, 1, 1), (2, 7, 2), (3, 100, 7), (5, 25, 5)):
        settings = Settings(threads=threads, updates=updates, rounds=rounds)
        steps = [settings.steps(number) for number in range(rounds)]
        assert sum(map(sum, steps)) == updates
        assert all(len(each) == threads for each in steps)


def test_the_gradient_is_that_of_the_objective_on_average() -> None:
    """The regulariser that is dealt out to the examples adds up to the one of the objective."""
    rows = small(density=0.1).rows.regularised(0.3)
    weights = torch.randn(60, generator=torch.Generator().manual_seed(0)).double()
    places = torch.repeat_interleave(torch.arange(rows.num), rows.offsets.diff())
    margins = torch.zeros(rows.num, dtype=torch.float64).index_add_(0, places, weights[rows.indices] * rows.values)
    slopes = -rows.labels / (1 + torch.exp(rows.labels * margins))
    each = slopes[places] * rows.values + rows.penalties[rows.indices] * weights[rows.indices]
    mean = torch.zeros(60, dtype=torch.float64).index_add_(0, rows.indices, each) / rows.num
    touched = torch.bincount(rows.indices, minlength=60) > 0
    for j in touched.nonzero().flatten().tolist():
        step = torch.zeros(60, dtype=torch.float64)
        step[j] = 1e-3
        # In f64 on both sides: the objective takes f64 weights as they are.
        slope = (
            objective(weights + step, rows, "logistic", 0.3) - objective(weights - step, rows, "logistic", 0.3)
        ) / 2e-3
        assert math.isclose(slope, mean[j].item(), rel_tol=1e-4, abs_tol=1e-6)


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_the_objective_is_its_definition(loss: Loss) -> None:
    x, labels = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, -1.0]]), torch.tensor([1.0, -1.0, -1.0])
    weights = torch.tensor([0.5, -0.25, 2.0])
    margins = (labels * (x @ weights)).tolist()
    each = [math.log1p(math.exp(-m)) if loss == "logistic" else max(0.0, 1 - m) for m in margins]
    expected = sum(each) / 3 + 0.1 / 2 * (0.25 + 0.0625 + 4)
    assert math.isclose(objective(weights, Rows.dense(x, labels), loss, 0.1), expected)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_examples_that_can_be_learnt(task: str) -> None:
    if task in ("breast-cancer", "digits"):
        pytest.importorskip("sklearn")
    given = {} if task in ("breast-cancer", "digits") else {"numel": 64, "examples": 128}
    examples = load_examples(task, **given)
    assert not given or (examples.rows.numel, examples.rows.num) == (64, 128)
    assert examples.density == 1 if task in ("gspar", "logreg", "breast-cancer") else 0 < examples.density < 1
    result = train(examples, Settings(threads=2, updates=4000, learning_rate=1.0))
    assert result.loss < 0.97 * result.losses[0].loss


def test_examples_have_the_density_that_was_asked_for() -> None:
    for density in (1.0, 0.1, 0.01, 0.001):
        rows = load_examples("sparse", numel=200, examples=30, density=density).rows
        count = max(1, round(density * 200))
        assert rows.offsets.diff().tolist() == [count] * 30
        for start in range(0, 30 * count, count):
            assert rows.indices[start : start + count].unique().numel() == count
        norms = rows.values.view(30, count).norm(dim=1)
        assert torch.allclose(norms, torch.ones(30))
    again = load_examples("sparse", numel=200, examples=30, density=0.001).rows
    assert torch.equal(again.values, rows.values)
    assert torch.equal(again.indices, rows.indices)


class Kept:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.results: list[Result] = []
        self.contests: list[ContestResult] = []

    def begins(self, what: str) -> None:
        self.begun.append(what)

    def trained(self, result: Result) -> None:
        self.results.append(result)

    def contested(self, result: ContestResult) -> None:
        self.contests.append(result)


def test_a_plan_measures_all_in_turn() -> None:
    plan = Plan(
        variants=("racy", "mutex"), threads=(1, 2), densities=(1.0, 0.1), numel=20, examples=30, repeat=3,
        settings=Settings(updates=64), additions=5000,
    )  # fmt: skip
    kept = Kept()
    rows = measure(plan, kept)
    assert len(kept.begun) == plan.num_runs == len(kept.results) + len(kept.contests) == 28
    assert [(row.results[0].density, row.results[0].settings.threads) for row in rows] == [
        (density, threads) for density in (1.0, 0.1) for threads in (1, 2) for _ in range(2)
    ]
    assert [each.settings.variant for each in kept.results[:6]] == ["racy", "mutex", "mutex", "racy", "racy", "mutex"]
    for row in rows:
        assert len(row.results) == 3
        assert row.extent[0] <= row.updates_per_s <= row.extent[1]
    lines = [each.to_json() for each in kept.results] + [each.to_json() for each in kept.contests]
    assert all(json.loads(json.dumps(line))["threads"] in (1, 2) for line in lines)


def test_a_loss_that_is_not_finite_is_null_in_json() -> None:
    result = train(small(), Settings(updates=4000, learning_rate=1e30, regularisation=1.0))
    assert not math.isfinite(result.loss)
    assert result.to_json()["losses"][-1]["loss"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variant": "lock"}, "it takes 'mutex' or"),
        ({"method": "adam"}, "it takes 'sgd' or 'mem-sgd' or 'gspar'"),
        ({"threads": 0}, "0 threads were given; 1 to 1024"),
        ({"keep": 0.0}, "a share above 0"),
        ({"keep": 1.5}, "a share above 0"),
        ({"rounds": 0}, "1 is the least"),
        ({"updates": 3}, "give 8 or more"),
        ({"learning_rate": -1.0}, "above 0"),
        ({"backoff": 1.5}, "at most 1"),
        ({"regularisation": -1.0}, "0 or more"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variants": ("racyy",)}, "did you mean racy"),
        ({"variants": ("racy", "racy")}, "each once"),
        ({"threads": ()}, "at least one"),
        ({"threads": (0,)}, "1 to 1024"),
        ({"densities": (0.1, 0.1)}, "twice"),
        ({"repeat": 0}, "1 is the least"),
        ({"additions": -1}, "0 is the least"),
    ],
    ids=str,
)
def test_plans_that_measure_nothing_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan(**given)


def test_tasks_that_cannot_be_made_are_refused() -> None:
    for message, given in (
        ("unknown task 'sparsely' of shared memory; did you mean sparse", {"task": "sparsely"}),
        ("density of 1.5 was given", {"task": "sparse", "density": 1.5}),
        ("numel = 0 was given", {"task": "sparse", "numel": 0}),
        ("Give fewer examples, or a lower density", {"task": "gspar", "numel": 10**6, "examples": 10**6}),
    ):
        with pytest.raises(ConfigError, match=message):
            load_examples(**given)
    with pytest.warns(UserWarning, match="density has no effect on the task gspar"):
        load_examples("gspar", numel=10, examples=10, density=0.5)
