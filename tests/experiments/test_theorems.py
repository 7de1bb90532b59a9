"""What thinwire theory prints, against the papers' formulas written here."""

import json
import math

import numpy as np
import pytest
import torch
from command_line import run_cli

from thinwire.cli.application import console
from thinwire.errors import ConfigError
from thinwire.experiments.theorems import TheoryProblem, facts, max_gap
from thinwire.layout import Layout
from thinwire.methods import CATALOG, parse_method

LAYOUT = Layout(("w", "b"), (torch.Size([50, 20]), torch.Size([200])))
PROBLEM = TheoryProblem(layout=LAYOUT, workers=8, steps=10_000, batch_size=4, lr=0.1, gradient_norm=2.0, kappa=50.0)


def found(text: str) -> dict[str, float]:
    return {fact.quantity: fact.value for fact in facts(parse_method(text), PROBLEM)}


@pytest.mark.parametrize("name", [row.name for row in CATALOG])
def test_something_is_known_of_every_method(name: str) -> None:
    known = facts(parse_method(name), PROBLEM)
    assert len({fact.quantity for fact in known}) == len(known) >= 2
    for fact in known:
        assert math.isfinite(fact.value)
        assert fact.value >= 0.0
        assert fact.certainty in ("exact", "bound", "order")


def test_a_sparsifier_with_local_steps() -> None:
    known = found("qsparse:k=12,values=signs,every=4,exchange=gather")
    gamma = known["contraction gamma"]
    assert gamma == pytest.approx(1 / 1200)  # of the signs of k entries nothing more is sure than 1 / d
    assert known["largest gap H between exchanges"] == 4
    assert known["local steps that are free, smooth"] == pytest.approx(gamma * 10_000**0.25 / 32**0.75)
    assert known["local steps that are free, strongly convex"] == pytest.approx(gamma * math.sqrt(10_000 / 32))
    assert known["shift a of eta_t = 8 / (mu (a + t)), above"] == pytest.approx(max(4 * 4 / gamma, 32 * 50))
    bound = 4 * (1 - gamma) / gamma**2 * (0.1 * 4 * 2.0) ** 2
    assert known["norm of the memory, at most"] == pytest.approx(math.sqrt(bound))


def test_local_sgd_has_no_memory_and_its_own_shift() -> None:
    known = found("local-sgd:every=1000")
    assert known["shift a of eta_t = 4 / (mu (a + t)), above"] == 1000
    assert "norm of the memory, at most" not in known
    assert known["relative variance omega"] == 0.0


def test_the_memory_of_gradients_is_in_their_units() -> None:
    gradients, displacements = found("ef-sgd:k=12"), found("topk:k=12")
    ratio = gradients["norm of the memory, at most"] / displacements["norm of the memory, at most"]
    assert ratio == pytest.approx(1 / PROBLEM.lr)


def test_gossip_on_a_ring() -> None:
    known = found("choco:k=120")
    delta = 2 / 3 * (1 - math.cos(2 * math.pi / 8))
    assert known["spectral gap delta of the graph"] == pytest.approx(delta)
    weights = np.eye(8) / 3
    for rank in range(8):
        weights[rank, (rank + 1) % 8] = weights[rank, (rank - 1) % 8] = 1 / 3
    beta, omega = np.linalg.norm(np.eye(8) - weights, 2), 0.1
    step = delta**2 * omega / (16 * delta + delta**2 + 4 * beta**2 + 2 * delta * beta**2 - 8 * delta * omega)
    assert known["consensus step gamma that is proven"] == pytest.approx(step)


def test_the_largest_gap_of_random_schedules() -> None:
    assert max_gap(parse_method("qsparse:every=5,gaps=random")) <= 9
    assert max_gap(parse_method("qsgd")) == 1


def test_the_command_prints_all_of_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["theory", "topk:k=3", "choco", "--numel", "1000"]
    assert run_cli(monkeypatch, *arguments, "--json", "-") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["method"] for line in lines} == {"topk:k=3", "choco"}
    monkeypatch.setattr(console, "width", 160)  # else names are folded
    assert run_cli(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    assert all(line["quantity"] in shown for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sgd"], "give --task for the model of a task, or --numel"),
        (["sgd", "--numel", "5", "--task", "digits"], "give --task for the model"),
        (["sgd", "--numel", "0"], "--numel 0 was given"),
        (["sgd", "--numel", "5", "--workers", "0"], "each is 1 or more"),
        (["sgd", "--numel", "5", "--kappa", "0.5"], "kappa is at least 1"),
        (["topk:k=9", "--numel", "5"], "only 5"),
    ],
)
def test_a_mistake_is_one_message(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, "theory", *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_problem_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        TheoryProblem(layout=LAYOUT, workers=1, steps=1, batch_size=1, lr=0.0, gradient_norm=1.0, kappa=1.0)
