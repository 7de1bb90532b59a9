"""The rows against numbers computed here from the raw records, and the terminal's table."""

import io
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import scipy.stats
import torch
from report_folders import Folder, Write
from rich.console import Console

from thinwire.report import ResultRow, effective_target, load, print_table, summarise
from thinwire.report.formats import human_bytes, significant
from thinwire.report.intervals import half_width
from thinwire.report.rows import baseline_of


def first_reaching(
    folder: Folder, method: str, target: float, good: Callable[[float, float], bool]
) -> list[dict[str, Any]]:
    """Per seed the first raw record at least as good as the target."""
    found: list[dict[str, Any]] = []
    for seed in folder.comparison["seeds"]:
        run = [r for r in folder.results if r["method"] == method and r["seed"] == seed]
        run = [r for r in run if r["value"] is not None and good(r["value"], target)]
        found += run[:1]
    return found


def by_method(folder: Folder) -> dict[str, ResultRow]:
    return {row.method: row for row in summarise(load(folder.path))}


def printed(rows: Sequence[ResultRow], width: int = 120) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=False)
    print_table(rows, console)
    return text.getvalue()


def half_of_two(first: float, second: float) -> float:
    """With two numbers: the quantile of Cauchy's distribution at 97.5 %, times half their difference."""
    return math.tan(math.pi * 0.475) * abs(first - second) / 2


def test_rows_agree_with_the_records(write: Write) -> None:
    folder = write()
    rows = by_method(folder)
    base = first_reaching(folder, "sgd", 0.86, lambda a, b: a >= b)
    base_message = statistics.mean(r["message_bytes"] for r in base)
    base_link = statistics.mean(r["bytes_sent"] + r["bytes_received"] for r in base)
    assert list(rows) == folder.comparison["methods"]
    for method, row in rows.items():
        finals = [r for r in folder.results if r["method"] == method and r["step"] == 600]
        assert row.final_value == pytest.approx(statistics.mean(r["value"] for r in finals))
        assert row.final_value_within == pytest.approx(half_of_two(*(r["value"] for r in finals)))
        dense = [r for r in folder.results if r["method"] == "sgd" and r["step"] == 600]
        ahead = [r["value"] - d["value"] for r, d in zip(finals, dense, strict=True)]
        assert row.against_dense == pytest.approx(statistics.mean(ahead))
        assert row.against_dense_within == pytest.approx(half_of_two(*ahead))
        assert row.final_loss == pytest.approx(statistics.mean(r["loss"] for r in finals))
        assert row.message_bytes_per_step == pytest.approx(statistics.mean(r["message_bytes"] for r in finals) / 600)
        reached = first_reaching(folder, method, 0.86, lambda a, b: a >= b)
        assert row.num_reached == len(reached)
        if not reached:
            assert (row.steps_to_target, row.message_ratio, row.seconds_to_target) == (None, None, None)
            continue
        message = statistics.mean(r["message_bytes"] for r in reached)
        link = statistics.mean(r["bytes_sent"] + r["bytes_received"] for r in reached)
        assert row.steps_to_target == pytest.approx(statistics.mean(r["step"] for r in reached))
        if len(reached) == 2:
            assert row.steps_to_target_within == pytest.approx(half_of_two(*(r["step"] for r in reached)))
            assert row.seconds_to_target_within == pytest.approx(half_of_two(*(r["seconds"] for r in reached)))
        assert row.message_bytes_to_target == pytest.approx(message)
        assert row.link_bytes_to_target == pytest.approx(link)
        assert row.seconds_to_target == pytest.approx(statistics.mean(r["seconds"] for r in reached))
        assert row.message_ratio == pytest.approx(base_message / message)
        assert row.link_ratio == pytest.approx(base_link / link)
    assert rows["sgd"].message_ratio == pytest.approx(1.0)
    assert rows["signsgd"].num_reached == 0


def test_without_a_target_it_is_a_little_below_what_every_dense_run_reached(write: Write) -> None:
    folder = write(changes={"target": None, "dense": ["sgd", "powersgd:rank=2"]}, seeds=(0, 1, 2))
    bests = [
        max(r["value"] for r in folder.results if (r["method"], r["seed"]) == (method, seed))
        for method in ("sgd", "powersgd:rank=2")
        for seed in (0, 1, 2)
    ]
    target = effective_target(load(folder.path))
    assert target == pytest.approx(min(bests) - 0.02 * (min(bests) - 0.1))
    rows = by_method(folder)
    assert rows["sgd"].num_reached == rows["powersgd:rank=2"].num_reached == 3


def test_on_a_logarithmic_axis_the_way_is_one_of_factors(write: Write) -> None:
    metric = {"name": "gap", "higher_is_better": False, "logarithmic": True}
    folder = write(value=lambda a, m: 10 ** (-4 * a), changes={"metric": metric, "target": None})
    worst = max(min(r["value"] for r in folder.results if (r["method"], r["seed"]) == ("sgd", s)) for s in (0, 1))
    start = 10**-0.4
    assert effective_target(load(folder.path)) == pytest.approx(worst * (start / worst) ** 0.02)


def test_ratios_are_against_the_fastest_dense_method(write: Write) -> None:
    dense = ["sgd", "qsgd:levels=4", "powersgd:rank=2"]
    folder = write(methods=[*dense, "topk:density=1%"], changes={"dense": dense})
    rows = by_method(folder)
    fastest = min(dense, key=lambda method: rows[method].seconds_to_target or 0.0)
    assert fastest != "sgd"
    assert [method for method in rows if rows[method].is_baseline] == [fastest] == [baseline_of(load(folder.path))]
    assert rows[fastest].message_ratio == pytest.approx(1.0)
    assert rows[fastest].against_dense == 0.0


def test_a_dense_method_that_missed_the_target_is_no_baseline(write: Write) -> None:
    # Its messages are the shortest and its seconds the fewest, but it does not get there.
    folder = write(methods=["signsgd", "sgd"], changes={"dense": ["signsgd", "sgd"]})
    assert baseline_of(load(folder.path)) == "sgd"


@pytest.mark.parametrize("count", [2, 3, 5, 12, 21, 22, 40, 200])
def test_the_intervals_are_students(count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)).double().numpy()
    low, high = scipy.stats.t.interval(0.95, count - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    assert half_width(values.tolist()) == pytest.approx((high - low) / 2, rel=2e-4)


def test_equal_finals_are_a_target_that_the_baseline_reaches(write: Write) -> None:
    # The mean of seven times 0.1 + 0.2 must not round above it.
    folder = write(seeds=range(7), changes={"target": None}, value=lambda a, m: 0.1 + 0.2, methods=["sgd"])
    assert by_method(folder)["sgd"].num_reached == 7


def test_one_seed_has_no_spread(write: Write) -> None:
    rows = by_method(write(seeds=(3,)))
    assert all(row.final_value_within is None and row.num_runs == 1 for row in rows.values())


def test_lower_is_better(write: Write) -> None:
    metric = {"name": "test loss", "higher_is_better": False, "logarithmic": False}
    folder = write(value=lambda a, m: 1 - a, changes={"metric": metric, "target": 0.14})
    reached = first_reaching(folder, "topk:density=1%", 0.14, lambda a, b: a <= b)
    row = by_method(folder)["topk:density=1%"]
    assert row.steps_to_target == pytest.approx(statistics.mean(r["step"] for r in reached))
    assert row.reliable


def test_no_baseline_means_no_ratios(write: Write) -> None:
    rows = by_method(write(changes={"dense": []}))
    assert all(row.message_ratio is None and row.link_ratio is None for row in rows.values())
    assert rows["topk:density=1%"].message_bytes_to_target is not None
    assert "times" not in printed(list(rows.values()))


def test_no_baseline_and_no_target_means_no_columns_to_it(write: Write) -> None:
    folder = write(changes={"dense": [], "target": None})
    assert effective_target(load(folder.path)) is None
    assert "target" not in printed(summarise(load(folder.path)))


def test_diverged_runs_are_counted_apart(write: Write) -> None:
    folder = write(diverges={"signsgd": (0, 1), "topk:density=1%": (1,)})
    rows = by_method(folder)
    assert rows["signsgd"].diverged
    assert rows["signsgd"].final_value is None
    partly = rows["topk:density=1%"]
    survivor = next(r for r in folder.results if (r["method"], r["seed"], r["step"]) == ("topk:density=1%", 0, 600))
    assert (partly.num_diverged, partly.diverged, partly.final_value_within) == (1, False, None)
    assert partly.final_value == survivor["value"]
    text = printed(list(rows.values()))
    assert "diverged" in text
    assert "(1/2 div.)" in text


def test_a_diverged_baseline_leaves_no_target(write: Write) -> None:
    assert effective_target(load(write(diverges={"sgd": (0, 1)}, changes={"target": None}).path)) is None


def test_a_method_without_a_run_is_still_listed(write: Write) -> None:
    folder = write()
    path = folder.path / "results.jsonl"
    path.write_text("".join(s + "\n" for s in path.read_text().splitlines() if '"signsgd"' not in s))
    row = by_method(folder)["signsgd"]
    assert (row.num_runs, row.final_value) == (0, None)
    assert "no run" in printed([row])


def test_a_target_met_before_the_first_step_has_no_ratio(write: Write) -> None:
    rows = by_method(write(changes={"target": 0.05}))
    assert rows["sgd"].steps_to_target == 0
    assert all(row.message_ratio is None for row in rows.values())


def test_the_table_fits_in_120_columns_and_keeps_brackets(write: Write) -> None:
    rows = summarise(load(write(diverges={"qsgd:levels=4": (0,)}).path))
    text = printed(rows)
    assert max(map(len, text.splitlines())) <= 120
    sgd = rows[0]
    assert sgd.message_bytes_to_target is not None
    assert sgd.link_bytes_to_target is not None
    assert sgd.seconds_to_target is not None
    for shown in (
        human_bytes(sgd.message_bytes_to_target),
        human_bytes(sgd.link_bytes_to_target),
        f"{significant(sgd.seconds_to_target)} s",
    ):
        assert shown in text
    assert "…" not in text
    assert "—" in text


def test_markup_in_a_method_is_printed_as_it_is(write: Write) -> None:
    folder = write(methods=["sgd"])
    for name in ("comparison.json", "results.jsonl", "tuning.jsonl"):
        path = folder.path / name
        path.write_text(path.read_text().replace('"sgd"', '"sgd[bold]"').replace('r": "sgd[bold]"', 'r": "sgd"'))
    assert "sgd[bold]" in printed(summarise(load(folder.path)))
