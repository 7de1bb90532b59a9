import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import user_tasks

from thinwire.errors import ConfigError
from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.learning_rates import make_average, make_rates
from thinwire.experiments.session import Session
from thinwire.experiments.settings import Setting
from thinwire.experiments.spec import Comparison, Run
from thinwire.network import Network

PLAIN = Comparison(
    methods=("topk:k=1",), task="user_tasks:pulled", workers=2, lrs=(0.5,), steps=12, tune_steps=12, evaluate_every=3,
    batch_size=2, lr_schedule="inverse:shift=4", average="quadratic:shift=4",
)  # fmt: skip


def test_schedules_are_their_formulas() -> None:
    steps = range(0, 400, 7)
    assert [make_rates("constant", 400).at(0.3, t) for t in steps] == [0.3] * len(steps)
    assert [make_rates("inverse:shift=20", 400).at(0.3, t) for t in steps] == pytest.approx(
        [6 / (20 + t) for t in steps]
    )
    bottou = [make_rates("bottou:decay=0.01", 400).at(10.0, t) for t in steps]
    assert bottou == pytest.approx([10 / (1 + 0.1 * t) for t in steps])
    drops = make_rates("drops:at=100/150,factor=0.1", 400)
    assert [drops.at(1.0, t) for t in (99, 100, 149, 150)] == pytest.approx([1.0, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("end", [0.0, 0.1])
@pytest.mark.parametrize(("warmup", "num_warm"), [("", 0), ("warmup=5%,", 15), ("warmup=40,", 40)])
def test_rates_rise_evenly_and_fall_with_the_run(warmup: str, num_warm: int, end: float) -> None:
    made = {
        name: [make_rates(f"{name}:{warmup}end={end:g}", 300).at(0.3, t) for t in range(400)]
        for name in ("cosine", "linear")
    }
    # torch's own schedulers, asked for one step after the other.
    optimizer = torch.optim.SGD([torch.zeros(1, dtype=torch.float32)], lr=0.3)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=300 - num_warm, eta_min=0.3 * end)
    expected = [0.3 * each / num_warm for each in range(1, num_warm + 1)]
    for _ in range(num_warm, 300):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        fall.step()
    assert made["cosine"][:300] == pytest.approx(expected, rel=1e-9)
    assert made["linear"][:num_warm] == made["cosine"][:num_warm]
    falls = [before - after for before, after in itertools.pairwise(made["linear"][num_warm:300])]
    assert falls == pytest.approx([0.3 * (1 - end) / (300 - num_warm)] * len(falls))
    for rates in made.values():
        assert max(rates) == pytest.approx(0.3)
        assert rates[299:] == [rates[299]] * 101
        assert rates[299] > 0.3 * end


def test_the_search_and_the_final_runs_each_anneal_over_their_own_steps(tmp_path: Path) -> None:
    comparison = replace(PLAIN, lr_schedule="linear:warmup=25%", average="none", steps=12, tune_steps=8)
    for purpose, steps in (("tune", 8), ("final", 12)):
        made = session(comparison, tmp_path / purpose, steps)
        made.train(0, steps)
        assert made.workers[0].optimizer.param_groups[0]["lr"] == pytest.approx(0.5 / (0.75 * steps))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("inverse", "write inverse:shift=NUMBER"),
        ("inverze:shift=1", "did you mean inverse"),
        ("inverse:shift=soon", "shift=soon cannot be read"),
        ("inverse:shift=0", "not above 0"),
        ("inverse:shift=1/2", "several numbers"),
        ("inverse:shift=1,decay=2", "inverse has no option 'decay'"),
        ("drops:at=10", "write drops:at=NUMBER,factor=NUMBER"),
        ("cosine:warmup=some", "cosine: some is no share"),
        ("cosine:warmup=12", "a warm-up of 12 steps, and a run has 12"),
        ("cosine:warmup=120%", "a warm-up of 14 steps, and a run has 12"),
        ("linear:end=120%", "end=120% was given; it is a share"),
        ("linear:end=x", "linear: x is no share"),
        ("linear:start=0", "linear has no option 'start'"),
        ("constant:lr=1", "constant has no option 'lr'; it takes none"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        replace(PLAIN, lr_schedule=text)


@pytest.mark.parametrize("text", ["mean", "quadratic", "quadratic:shift=-1", "uniform:shift=1", ""])
def test_an_average_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        replace(PLAIN, average=text)


def session(comparison: Comparison, folder: Path, steps: int | None = None) -> Session:
    run = Run(comparison.methods[0], Setting("sgd", "", 0.5), 0, "final", steps or comparison.steps)
    engine = SimulatedEngine(2, Network())
    return Session(comparison, run, user_tasks.pulled(), engine, folder)


def test_the_evaluated_average_is_the_weighted_mean_of_the_models_before_each_step(tmp_path: Path) -> None:
    made = session(PLAIN, tmp_path)
    models, rates = [], []
    for step in range(12):
        models.append([tensor.double().clone() for tensor in made.workers[0].shared_parameters().values()])
        made.train(step, step + 1)
        rates.append(made.workers[1].optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([2.0 / (4 + t) for t in range(12)])
    weights = torch.tensor([(4.0 + t) ** 2 for t in range(12)], dtype=torch.float64)
    assert made._averager is not None
    for number, found in enumerate(made._averager.parameters().values()):
        stacked = torch.stack([each[number] for each in models])
        mean = torch.tensordot(weights / weights.sum(), stacked, dims=1)
        assert torch.allclose(found.double(), mean, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("average", ["none", "uniform", "quadratic:shift=4"])
def test_a_run_with_a_schedule_and_an_average_goes_on_with_its_bits(average: str, tmp_path: Path) -> None:
    comparison: Any = replace(PLAIN, average=average)
    whole = list(session(comparison, tmp_path / "whole").records())
    first = session(comparison, tmp_path / "cut")
    for record in first.records():
        if record["step"] == 6:
            first.save(6)
            break
    rest = list(session(comparison, tmp_path / "cut").records())
    assert [record["step"] for record in rest] == [9, 12]
    assert [record["value"] for record in rest] == [record["value"] for record in whole[-2:]]
    if average != "none":
        last = list(session(replace(comparison, average="none"), tmp_path / "last").records())
        assert whole[0]["value"] == last[0]["value"]
        assert whole[-1]["value"] != last[-1]["value"]


def test_an_average_has_no_meaning_where_each_worker_has_its_own_clock(tmp_path: Path) -> None:
    comparison = replace(PLAIN, methods=("qsparse-async:k=1",))
    with pytest.raises(ConfigError, match="leave out the average"):
        session(comparison, tmp_path)
    assert make_average("none") is None
