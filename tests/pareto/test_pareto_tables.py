"""The tables and the sentences of a made-up family, against texts written here."""

import io
from pathlib import Path

import pytest
from family_folders import ACCURACY, PARTS, TARGET, Cost, Departure, made_up, result_of, write_family
from rich.console import Console

from thinwire import pareto
from thinwire.pareto.family import DENSE
from thinwire.pareto.points import MEASURES
from thinwire.pareto.tables import allowed_grid, contest_grid, points_grid, sentences
from thinwire.report.formats import TIMES

ALL_THREE, PART, PAIR = "signtopk:density=1%,every=8", "local-sgd:every=8", "signtopk:density=1%"
LOW, LOW_LOG = ({"name": "loss", "higher_is_better": False, "logarithmic": is_log} for is_log in (False, True))


def three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def told(tmp_path: Path, costs: dict[str, Cost], *missed: str) -> list[str]:
    return sentences(result_of(write_family(tmp_path, costs, Departure(missed=missed))))


def test_sentences_say_by_each_measure_whom_all_three_beat(tmp_path: Path) -> None:
    """The part pays less on the link and as much time; the pair pays more of all."""
    costs = {
        "sgd": Cost(1e5, 0.8, link=4.0, step_s=1e-2), PART: Cost(1e4, 0.8, link=1.0, step_s=1e-3),
        PAIR: Cost(1e4, 0.8, link=99.0, step_s=2e-3), ALL_THREE: Cost(1e3, 0.8, link=20.0, step_s=1e-3),
    }  # fmt: skip
    assert told(tmp_path / "all", costs) == [
        f"In message bytes to accuracy ≥ 0.5 all three beat each part and each pair; cheapest: {ALL_THREE}.",
        f"In link bytes to accuracy ≥ 0.5 all three do not beat each part and pair: local steps cost less; "
        f"cheapest: {ALL_THREE}.",
        f"In seconds to accuracy ≥ 0.5 all three do not beat each part and pair: local steps cannot be told apart by "
        f"these seeds; cheapest: {ALL_THREE}.",
    ]
    assert told(tmp_path / "missed", costs, PAIR)[0] == (
        "In message bytes to accuracy ≥ 0.5 all three beat each part and each pair (quantize + sparsify missed it); "
        f"cheapest: {ALL_THREE}."
    )
    assert told(tmp_path / "both", costs, PAIR)[1] == (
        "In link bytes to accuracy ≥ 0.5 all three do not beat each part and pair: local steps cost less; quantize + "
        f"sparsify missed it; cheapest: {ALL_THREE}."
    )
    assert told(tmp_path / "none", costs, ALL_THREE) == [
        f"In {what} to accuracy ≥ 0.5 no configuration of all three can be told: none reached it in every run."
        for what in MEASURES.values()
    ]
    del costs[ALL_THREE]
    assert told(tmp_path / "without", costs) == []


def test_the_contest_says_cost_ratio_and_verdict(tmp_path: Path) -> None:
    costs = {"sgd": Cost(1e5, 0.8), PART: Cost(1e3, 0.8), PAIR: Cost(1e2, 0.8), ALL_THREE: Cost(1e3, 0.8)}
    result = result_of(write_family(tmp_path, costs))
    # Seeds pay 1, 1.1 and 1.2 times as much: a half of 4.303 * 0.1 / sqrt(3) = 0.2484; of the ratio, by sqrt(2) / 1.1.
    assert contest_grid(result.contest["message"]).rows == [
        ("dense", "sgd", "11.0 MB ±2.48 MB", "100 ±31.9", "beaten"),
        ("local steps", PART, "110 kB ±24.8 kB", "1.00 ±0.319", "as good as"),
        ("quantize + sparsify", PAIR, "11.0 kB ±2.48 kB", "0.100 ±0.0319", "better than all three"),
        ("all three", ALL_THREE, "110 kB ±24.8 kB", "—", ""),
    ]
    assert contest_grid(result.contest["link"]).rows[0][2] == "44.0 MB ±9.94 MB"
    assert contest_grid(result.contest["seconds"]).rows[0][2] == "0.110 ±0.0248"


@pytest.mark.parametrize(
    ("metric", "unit", "texts"),
    [
        (ACCURACY, "points", ["0.2 points", "0.5 points", "1 points", "2 points", "5 points"]),
        (LOW_LOG, "factor", ["1.1" + TIMES, "1.5" + TIMES, "2" + TIMES, "5" + TIMES]),
        (LOW, "value", None),
    ],
    ids=["share", "logarithmic", "other"],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_best_for_each_loss(
    tmp_path: Path, metric: dict[str, object], unit: str, texts: list[str] | None, seed: int
) -> None:
    costs = made_up(seed)
    sign = 1.0 if metric["higher_is_better"] else -1.0
    finals = {method: cost.final + 1e-3 for method, cost in costs.items()}  # the mean over seeds
    if sign < 0:
        finals = {method: 1.0 - final for method, final in finals.items()}
    dense = sign * max(sign * finals[method] for method in DENSE)
    limits = {
        "points": [dense - loss for loss in (0.002, 0.005, 0.01, 0.02, 0.05)],
        "factor": [dense * factor for factor in (1.1, 1.5, 2.0, 5.0)],
        "value": [dense * (1 + share) for share in (0.002, 0.005, 0.01, 0.02, 0.05)],
    }[unit]
    result = result_of(write_family(tmp_path, costs, Departure(metric=metric)))
    rows = allowed_grid(result.allowed).rows
    fastest = min(DENSE, key=lambda method: costs[method].step_s)
    assert [each.limit for each in result.allowed] == pytest.approx(limits)
    for each, limit, row in zip(result.allowed, limits, rows, strict=True):
        good = [method for method in costs if sign * finals[method] >= sign * limit - 1e-12]
        best = min(good, key=lambda method: costs[method].num_bytes)
        ratio = costs[fastest].num_bytes / costs[best].num_bytes
        assert each.unit == unit
        assert each.point is not None
        assert each.point.row.method == row[2] == best
        assert each.ratio == pytest.approx(ratio)
        assert row[4] == (f"{ratio:,.0f}" if ratio >= 100 else three_digits(ratio)) + TIMES
        assert row[5] == f"{finals[best]:.4g}"
    shown = [f"{dense * share:.4g}" for share in (0.002, 0.005, 0.01, 0.02, 0.05)] if texts is None else texts
    assert [row[0] for row in rows] == shown


@pytest.mark.parametrize("name", ["taken", "loss", "steps", "seconds", "link bytes", "times fewer"])
def test_a_metric_may_have_the_name_of_a_column(tmp_path: Path, name: str) -> None:
    costs = made_up(1)
    metric = {**LOW, "name": name}
    grid = points_grid(result_of(write_family(tmp_path, costs, Departure(metric=metric))).points)
    heads = list(grid.heads)
    assert heads == [
        "parts", "configuration", "on the\nfrontier", "message bytes\nof a run", "link bytes\nof a run", "lr",
        f"final\n{name}", "against\ndense", "steps to\ntarget", "message\nbytes", "link\nbytes", "time to\ntarget",
    ]  # fmt: skip
    for row, (method, cost) in zip(grid.rows, costs.items(), strict=True):
        told = dict(zip(heads, row, strict=True))
        assert told["configuration"] == method
        assert told[f"final\n{name}"] == f"{1 - cost.final - 1e-3:.4g} ±0.0025"  # 4.303 * 1e-3 / sqrt(3)
        assert told["steps to\ntarget"] == "100 ±0"
        assert told["time to\ntarget"].partition(" ")[0] == three_digits(110 * cost.step_s)


def test_the_terminal_and_latex_say_the_same_and_mark_the_frontier(tmp_path: Path) -> None:
    costs = made_up(2)
    result = result_of(write_family(tmp_path, costs))
    text = io.StringIO()
    pareto.print_pareto(result, Console(file=text, width=300, force_terminal=True, color_system="truecolor"))
    shown, latex = text.getvalue(), pareto.latex_points(result.points)
    for point in result.points:
        method = point.row.method
        assert (f"\x1b[1m{method}\x1b" in shown) == point.on_frontier
        name = method.replace("%", r"\%")
        (line,) = (line for line in latex.splitlines() if line.startswith(rf"\texttt{{{name}}}"))
        assert (rf"\textbf{{{point.name}}}" in line) == point.on_frontier
        where = {(True, True): "both", (True, False): "message", (False, True): "link", (False, False): ""}
        assert line.split(" & ")[2] == where[point.on_frontier, point.on_link_frontier]
    assert "fewest message bytes that end at most so much worse" in shown
    assert f"message bytes to accuracy ≥ {TARGET}: all three against their parts" in shown
    assert all(line in shown for line in sentences(result))
    assert len(PARTS) == len(result.points)
