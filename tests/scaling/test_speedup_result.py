"""What is told of made-up comparisons, against numbers computed here from the same records."""

import io
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import check_refused, run_cli
from report_folders import Plan, write_folder
from rich.console import Console
from scipy.optimize import nnls

from thinwire import scaling
from thinwire.errors import ConfigError
from thinwire.scaling.points import Point, SpeedupResult

WORKERS = (1, 2, 4, 8)
METHODS = ("sgd", "topk:density=1%", "topk:density=5%", "local-sgd:every=4")
COMPUTE_S, CODEC_S = 0.005, 0.002
TARGET = 0.5
NUM_PARAMETERS = 26_122

Steps = Callable[[str, int, int], int | None]


def steps_of(method: str, workers: int, seed: int) -> int | None:
    """To the target: by no law, so that predictions are wrong."""
    steps = {1: 900, 2: 500, 4: 240, 8: 170}[workers] + 11 * seed * (1 + METHODS.index(method))
    return steps + 30 * METHODS.index(method)


def message_bytes(method: str) -> float:
    return {"sgd": 104_488.0, "topk:density=1%": 900.0, "topk:density=5%": 4_000.0, "local-sgd:every=4": 26_000.0}[
        method
    ]


def step_s(method: str, workers: int) -> float:
    exchanges = 0.25 if method.startswith("local") else 1.0
    codec_s = CODEC_S if method.startswith("topk") else 0.0
    return COMPUTE_S + exchanges * (codec_s + (workers - 1) * (1e-3 + message_bytes(method) * 1e-8))


def write_speedup(
    folder: Path, steps: Steps = steps_of, workers: Sequence[int] = WORKERS, seeds: Sequence[int] = (0, 1)
) -> Path:
    """A folder as ``thinwire speedup`` writes it."""
    for count in workers:
        own = folder / f"workers-{count}"
        changes: dict[str, Any] = {
            "methods": METHODS, "workers": count, "target": TARGET, "seeds": list(seeds),
            "chosen": {method: {"optimizer": "sgd", "options": "", "lr": 0.1} for method in METHODS},
            "codec_s": {method: [0.5 * CODEC_S, CODEC_S] for method in METHODS if method.startswith("topk")},
        }  # fmt: skip
        made = write_folder(own, Plan(methods=["sgd"], changes=changes))
        like = made.results[0]
        records = []
        for method in METHODS:
            for seed in seeds:
                reached = steps(method, count, seed)
                for step in (0, 100, 1000) if reached is None else sorted({0, reached, 1000}):
                    num_bytes = step * message_bytes(method)
                    records.append({
                        **like, "method": method, "seed": seed, "step": step, "lr": 0.1,
                        "value": 0.9 if reached is not None and step >= reached else 0.1, "loss": 1.0,
                        "seconds": step * step_s(method, count), "message_bytes": num_bytes,
                        "bytes_sent": num_bytes * (count - 1), "bytes_received": num_bytes * (count - 1),
                    })  # fmt: skip
        (own / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (own / "tuning.jsonl").write_text("")
    return folder


def result_of(folder: Path) -> SpeedupResult:
    return scaling.summarise_speedup(scaling.load_speedup(folder))


def points_of(result: SpeedupResult, method: str) -> dict[int, Point]:
    return {point.workers: point for point in result.points if point.method == method}


def half_of_two(values: Sequence[float]) -> float:
    """By the quantile of Cauchy's distribution."""
    return math.tan(math.pi * 0.475) * abs(values[0] - values[1]) / 2


def fitted(steps: dict[int, float]) -> Callable[[int], float]:
    """``a + b / P`` by another library."""
    counts, values = np.array(list(steps)), np.array(list(steps.values()))
    (a, b), _ = nnls(np.stack([1 / values, 1 / (counts * values)], axis=1), np.ones(len(values)))
    return lambda workers: float(a + b / workers)


@pytest.mark.parametrize("method", METHODS)
def test_points_agree_with_the_records(tmp_path: Path, method: str) -> None:
    points = points_of(result_of(write_speedup(tmp_path)), method)
    assert tuple(points) == WORKERS
    alone = [float(steps_of(method, 1, seed) or 0) for seed in (0, 1)]
    for workers, point in points.items():
        steps = [float(steps_of(method, workers, seed) or 0) for seed in (0, 1)]
        mean = statistics.mean(steps)
        assert point.steps is not None
        assert point.seconds is not None
        assert point.message_bytes is not None
        assert point.link_bytes is not None
        assert point.speedup_steps is not None
        assert point.speedup_seconds is not None
        assert (point.steps.mean, point.steps.within) == pytest.approx((mean, half_of_two(steps)))
        assert point.seconds.mean == pytest.approx(mean * step_s(method, workers))
        assert point.message_bytes.mean == pytest.approx(mean * message_bytes(method))
        assert point.link_bytes.mean == pytest.approx(2 * (workers - 1) * mean * message_bytes(method))
        assert point.ratio == pytest.approx(4 * NUM_PARAMETERS / message_bytes(method))
        ratio = statistics.mean(alone) / mean
        assert point.speedup_steps.mean == pytest.approx(ratio)
        parts = half_of_two(alone) / statistics.mean(alone), half_of_two(steps) / mean
        assert point.speedup_steps.within == pytest.approx(ratio * math.hypot(*parts) if workers > 1 else None)
        seconds = ratio * step_s(method, 1) / step_s(method, workers)
        assert point.speedup_seconds.mean == pytest.approx(seconds)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_taken_apart(tmp_path: Path, method: str) -> None:
    for workers, point in points_of(result_of(write_speedup(tmp_path)), method).items():
        assert point.step is not None
        assert point.step.total_s == pytest.approx(step_s(method, workers))
        assert point.step.compute_s == COMPUTE_S
        assert point.step.codec_s == pytest.approx(CODEC_S if method.startswith("topk") else 0.0)
        assert (point.step.communication_s > 0) == (workers > 1)


@pytest.mark.parametrize("method", METHODS)
def test_each_number_of_workers_is_predicted_from_the_others(tmp_path: Path, method: str) -> None:
    result = result_of(write_speedup(tmp_path))
    measured = {count: statistics.mean(steps_of(method, count, seed) or 0 for seed in (0, 1)) for count in WORKERS}
    for workers, point in points_of(result, method).items():
        others = {count: steps for count, steps in measured.items() if count != workers}
        expected = fitted(others)(workers)
        said = point.prediction
        assert said is not None
        assert said.steps == pytest.approx(expected)
        assert said.steps_error == pytest.approx(expected / measured[workers] - 1)
        assert said.seconds == pytest.approx(expected * step_s(method, workers))
        assert said.seconds_error == pytest.approx(said.steps_error)
    (own,) = (each for each in result.scalings if each.method == method)
    assert own.model is not None
    del measured[8]
    assert own.model.at(8) == pytest.approx(fitted(measured)(8))


def test_linear_is_four_fifths_of_the_workers(tmp_path: Path) -> None:
    def steps(method: str, workers: int, seed: int) -> int:
        slow = {"sgd": (800, 400, 200, 100), "topk:density=1%": (800, 500, 250, 125)}.get(method, (800, 600, 500, 400))
        return slow[WORKERS.index(workers)]

    result = result_of(write_speedup(tmp_path, steps))
    assert [each.linear_until for each in result.scalings] == [8, 8, 1, 1]
    text = printed(result)
    assert "≥ 8" in text
    assert result.scalings[0].model is not None
    assert result.scalings[0].model.linear_until() > 1e6


def test_a_method_that_misses_the_target_competes_in_nothing(tmp_path: Path) -> None:
    def steps(method: str, workers: int, seed: int) -> int | None:
        if method == "sgd" and workers == 4 and seed == 1:
            return None
        return None if method == "topk:density=1%" and workers in (1, 2) else steps_of(method, workers, seed)

    result = result_of(write_speedup(tmp_path, steps))
    partly, missing = points_of(result, "sgd"), points_of(result, "topk:density=1%")
    assert (partly[4].steps, partly[4].speedup_steps, partly[4].prediction) == (None, None, None)
    assert partly[8].prediction is not None
    expected = {count: statistics.mean(steps_of("sgd", count, seed) or 0 for seed in (0, 1)) for count in (1, 2)}
    assert partly[8].prediction.steps == pytest.approx(fitted(expected)(8))
    assert all(point.speedup_steps is None and point.prediction is None for point in missing.values())
    scalings = {each.method: each for each in result.scalings}
    assert scalings["topk:density=1%"].linear_until is None
    assert scalings["topk:density=1%"].model is None
    assert "1 of 2 runs" in printed(result)
    assert all(best.point.method != "topk:density=1%" for best in result.best if best.workers in (1, 2))


def test_the_best_is_the_one_with_the_fewest_seconds(tmp_path: Path) -> None:
    result = result_of(write_speedup(tmp_path))
    assert {best.family for best in result.best} == {"", "topk"}
    for best in result.best:
        rivals = [method for method in METHODS if method.startswith(best.family)]
        seconds = {
            method: statistics.mean(steps_of(method, best.workers, seed) or 0 for seed in (0, 1))
            * step_s(method, best.workers)
            for method in rivals
        }
        assert best.point.method == min(rivals, key=lambda method: seconds[method])


def printed(result: SpeedupResult, width: int = 200) -> str:
    text = io.StringIO()
    scaling.print_speedup(result, Console(file=text, width=width, force_terminal=False))
    return text.getvalue()


def test_the_report_command_shows_tables_page_and_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_speedup(tmp_path)
    assert run_cli(monkeypatch, "report", str(folder)) == 0
    shown = capsys.readouterr().out
    assert shown.rstrip().endswith("speedup.html")
    page = (folder / "speedup.html").read_text()
    for method in METHODS:
        assert method in shown
        assert method in page
    assert all(f"P = {count}" in page for count in WORKERS)
    assert run_cli(monkeypatch, "report", str(folder), "--json", "-") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [line["kind"] for line in lines]
    assert [kinds.count(kind) for kind in ("point", "scaling", "best")] == [16, 4, 8]
    first = lines[1]
    assert (first["method"], first["workers"], first["steps"]["mean"]) == ("sgd", 2, 505.5)


def test_other_tables_than_json_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_speedup(tmp_path)
    check_refused(monkeypatch, capsys, ["report", str(folder), "--csv", "-"], ("written as JSON only", "workers-1"))


def test_one_seed_and_two_numbers_of_workers_are_enough(tmp_path: Path) -> None:
    result = result_of(write_speedup(tmp_path, workers=(1, 4), seeds=(0,)))
    for point in result.points:
        assert point.prediction is None  # one number of workers makes no fit
        assert point.steps is not None
        assert point.steps.within is None
    assert all(each.model is None for each in result.scalings)
    assert "±" not in printed(result)


def test_evaluations_that_lie_far_apart_are_told(tmp_path: Path) -> None:
    def steps(method: str, workers: int, seed: int) -> int:
        return 800 // workers

    result = result_of(write_speedup(tmp_path, steps))
    assert all(point.is_coarse for point in result.points)  # the first evaluation is the one that reached it
    assert "With 1, 2, 4, 8 workers evaluations lie further apart" in printed(result)
    for count in WORKERS:  # and now every twentieth of them
        path = tmp_path / f"workers-{count}" / "results.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        early = [{**line, "step": 800 // count // 20} for line in lines if line["step"] == 0]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines + early))
    result = result_of(tmp_path)
    assert not any(point.is_coarse for point in result.points)
    assert "evaluations lie" not in printed(result)


def spoil(folder: Path, count: int, changes: dict[str, Any]) -> None:
    path = folder / f"workers-{count}" / "comparison.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_no_speedup_is_refused(tmp_path: Path) -> None:
    for name, changes, part in (
        ("target", {"target": 0.7}, "target is 0.5 with 1 worker and 0.7 with 4"),
        ("batch", {"batch_size": 4}, "batch_size is 32 with 1 worker and 4 with 4"),
        ("copied", {"workers": 2}, "is a comparison of 2 workers"),
    ):
        folder = write_speedup(tmp_path / name)
        spoil(folder, 4, changes)
        with pytest.raises(ConfigError, match=part):
            scaling.load_speedup(folder)
    folder = write_speedup(tmp_path / "none", workers=(2, 4))
    with pytest.raises(ConfigError, match="has comparisons of 2, 4 workers; a speed-up needs workers-1"):
        scaling.load_speedup(folder)
    folder = write_speedup(tmp_path / "aimless")
    for workers in WORKERS:
        spoil(folder, workers, {"target": None})
    with pytest.raises(ConfigError, match="give --target"):
        scaling.load_speedup(folder)


def test_a_target_that_is_met_at_the_start_is_refused(tmp_path: Path) -> None:
    folder = write_speedup(tmp_path)
    for workers in WORKERS:
        spoil(folder, workers, {"target": 0.05})
    with pytest.raises(ConfigError, match="met before the first step"):
        result_of(folder)
