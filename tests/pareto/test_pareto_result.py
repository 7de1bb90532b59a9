"""What is told of a made-up family, against numbers computed here from the same records; the family itself."""

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import run_cli
from family_folders import (
    PARTS,
    SEEDS,
    STEPS,
    TARGET,
    TO_TARGET,
    Cost,
    Costs,
    Departure,
    grown,
    made_up,
    result_of,
    write_family,
)

from thinwire import pareto
from thinwire.cli.application import console
from thinwire.errors import ConfigError
from thinwire.methods import parse_method
from thinwire.pareto.family import DENSE, Family, parts_of
from thinwire.pareto.page import page_of
from thinwire.pareto.parts import COMBINED, parts_name
from thinwire.pareto.points import MEASURES, Measure, Point
from thinwire.pareto.tables import sentences


def test_a_family_has_every_subset_with_every_value_once() -> None:
    family = Family(densities=("1%", "5%"), bits=(1, 2, 4), periods=(4, 8))
    counts = {"quantize": 3, "sparsify": 2, "local steps": 2}
    methods = family.methods()
    assert len(set(methods)) == len(methods)
    found = [parts_of(method) for method in methods]
    for number in range(4):
        for subset in itertools.combinations(COMBINED, number):
            expected = math.prod(counts[part] for part in subset) if subset else len(DENSE)
            assert found.count(subset) == expected, subset
    products = [repr(parse_method(method)) for method in methods]
    assert len(set(products)) == len(products)


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("sgd", ()), ("bf16-sgd", ()), ("qsgd:bits=2", ("quantize",)), ("mem-sgd:k=0.5", ("sparsify",)),
        ("terngrad", ("quantize",)), ("gspar", ("quantize", "sparsify")), ("dgc", ("sparsify",)),
        ("powersgd", ("low rank",)),
        ("diloco", ("local steps",)), ("sparseloco", COMBINED), ("local-sgd:every=1", ()),
        ("post-local-sgd:switch=300", ("local steps",)), ("pqasgd", ("quantize", "local steps")),
        ("qsparse:density=1%", ("quantize", "sparsify")), ("topk:every=2", ("sparsify", "local steps")),
    ],
)  # fmt: skip
def test_parts_are_told_by_what_is_sent_and_when(method: str, parts: tuple[str, ...]) -> None:
    assert parts_of(method) == parts


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"bits": (0,)}, "--bits 0 was given"), ({"bits": (4, 33)}, "--bits 4,33"),
        ({"periods": (1, 8)}, "--every 1,8"),
        ({"densities": ("1%", "1%")}, "--density 1%,1% has a value twice"), ({"periods": (8, 8)}, "twice"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_is_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Family(**given)


@pytest.mark.parametrize("seed", range(5))
def test_the_frontier_is_what_nothing_dominates(tmp_path: Path, seed: int) -> None:
    costs = made_up(seed)
    diverged = list(costs)[3:4]
    points = result_of(write_family(tmp_path / "family", costs, Departure(diverged=diverged))).points
    assert [point.row.method for point in points] == list(costs)
    for point in points:
        cost = costs[point.row.method]
        mean = statistics.mean(STEPS * cost.num_bytes * grown(each) for each in SEEDS)
        assert point.message_bytes == pytest.approx(mean)
        assert point.link_bytes == pytest.approx(cost.link * mean)
        if point.row.method not in diverged:
            assert point.row.final_value == pytest.approx(cost.final + 1e-3)
    by_message, by_link = (not_dominated(costs, measure, diverged) for measure in ("message", "link"))
    assert [point.row.method for point in points if point.on_frontier] == by_message
    assert [point.row.method for point in points if point.on_link_frontier] == by_link
    assert by_message != by_link  # else either could stand for the other


def not_dominated(costs: Costs, measure: Measure, diverged: Sequence[str]) -> list[str]:
    """By definition, over all pairs."""
    rivals = {method: (cost.of(measure), -cost.final) for method, cost in costs.items() if method not in diverged}
    return [
        method
        for method, own in rivals.items()
        if not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in rivals.values())
    ]


@pytest.mark.parametrize("seed", range(3))
def test_the_contest_is_between_the_cheapest_of_each_kind(tmp_path: Path, seed: int) -> None:
    costs = made_up(seed)
    missed = [method for method, own in PARTS.items() if own == ("sparsify",)]
    result = result_of(write_family(tmp_path / "family", costs, Departure(missed=missed)))
    winners: dict[Measure, list[str]] = {}
    for measure, contest in result.contest.items():
        assert [rival.parts for rival in contest] == [
            subset for number in range(4) for subset in itertools.combinations(COMBINED, number)
        ]
        all_three = min(costs[method].of(measure) for method, own in PARTS.items() if own == COMBINED)
        for rival in contest:
            paid = {method: costs[method].of(measure) for method, parts in PARTS.items() if parts == rival.parts}
            if rival.parts == ("sparsify",):
                assert (rival.verdict, rival.point, rival.ratio) == ("missed", None, None)
                continue
            cheapest = min(paid, key=paid.__getitem__)
            winners.setdefault(measure, []).append(cheapest)
            assert rival.point is not None
            assert rival.cost is not None
            assert rival.ratio is not None
            assert rival.point.row.method == cheapest
            assert rival.cost.mean == pytest.approx(1.1 * TO_TARGET * paid[cheapest])
            assert rival.ratio.mean == pytest.approx(paid[cheapest] / all_three)
            # 10 and 20 % more with the other seeds, so that both relative halves are the same.
            half = 4.3027 * 0.1 / 1.1 / math.sqrt(3)
            assert rival.ratio.within == pytest.approx(rival.ratio.mean * half * math.sqrt(2), rel=1e-4)
            within = rival.ratio.within or math.nan
            low, high = rival.ratio.mean - within, rival.ratio.mean + within
            assert rival.verdict == ("beaten" if low > 1 else "ahead" if high < 1 else "even")
    assert winners.keys() == MEASURES.keys()
    assert winners["message"] != winners["link"] != winners["seconds"] != winners["message"]


@pytest.mark.parametrize(
    ("free", "verdicts"),
    [
        (["signtopk:density=1%,every=8"], {"local-sgd:every=8": "beaten", "signtopk:density=1%,every=8": "even"}),
        (["local-sgd:every=8"], {"local-sgd:every=8": "ahead", "signtopk:density=1%,every=8": "even"}),
        (["local-sgd:every=8", "signtopk:density=1%,every=8"], {"local-sgd:every=8": "even"}),
    ],
    ids=["all three", "a part", "both"],
)
def test_who_reaches_the_target_before_the_first_message_pays_nothing(
    tmp_path: Path, free: list[str], verdicts: dict[str, str]
) -> None:
    methods = ("sgd", "local-sgd:every=8", "signtopk:density=1%,every=8")
    costs = {method: Cost(0.0 if method in free else 100.0, 0.7) for method in methods}
    result = result_of(write_family(tmp_path, costs))
    found = {each.point.row.method: each.verdict for each in result.contest["message"] if each.point}
    assert verdicts.items() <= found.items()
    expected = "do not beat" if "local-sgd:every=8" in free else "beat"
    assert sentences(result)[0].startswith(f"In message bytes to accuracy ≥ 0.5 all three {expected} ")


def test_a_family_is_reported_again_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "width", 240)
    costs = made_up(1)
    folder = write_family(tmp_path / "family", costs)
    assert run_cli(monkeypatch, "report", str(folder)) == 0
    shown = capsys.readouterr().out
    assert all(method in shown for method in costs)
    for what in MEASURES.values():
        assert f"In {what} to accuracy ≥ 0.5 all three " in shown
    assert (folder / "pareto.html").exists()
    assert (folder / "report.html").exists()
    assert run_cli(monkeypatch, "report", str(folder), "--json", "-") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["method"] for line in lines if line["kind"] == "point"] == list(costs)
    assert {line["parts"] for line in lines if line["kind"] == "contestant"} == {
        parts_name(each) for number in range(4) for each in itertools.combinations(COMBINED, number)
    }
    assert run_cli(monkeypatch, "report", str(folder), "--csv", "-") == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(costs)
    assert "on_frontier" in header.split(",")
    assert run_cli(monkeypatch, "report", str(folder), "--latex", "-") == 0
    assert capsys.readouterr().out.count(r"\texttt{") == len(costs)


def test_the_page_has_every_configuration_and_draws_the_frontier(tmp_path: Path) -> None:
    data = pareto.load_family(write_family(tmp_path, made_up(2)))
    drawings = [drawing.content for drawing in page_of(data).drawings]
    points = pareto.summarise_family(data).points
    assert len(drawings) == 2
    for drawing, on, cost in zip(
        drawings,
        [{p.row.method for p in points if p.on_frontier}, {p.row.method for p in points if p.on_link_frontier}],
        ["message_bytes", "link_bytes"],
        strict=True,
    ):
        stairs, *marks = drawing["data"]
        assert sorted(stairs["x"]) == stairs["x"] == sorted(getattr(p, cost) for p in points if p.row.method in on)
        assert sum(len(trace["x"]) for trace in marks) == len(points)


def test_a_method_of_unknown_parts_is_refused(tmp_path: Path) -> None:
    folder = write_family(tmp_path, made_up(0))
    (folder / pareto.FILE).write_text(pareto.family_text({"sgd": ()}))
    with pytest.raises(ConfigError, match=r"does not say what bf16-sgd, .* is made of"):
        pareto.load_family(folder)


def test_points_that_are_equal_are_all_kept(tmp_path: Path) -> None:
    costs = dict.fromkeys(("sgd", "bf16-sgd", "topk:density=1%"), Cost(100.0, 0.7))
    points: Sequence[Point] = result_of(write_family(tmp_path, costs)).points
    assert [point.on_frontier for point in points] == [True] * 3


@pytest.mark.parametrize("at_start", [COMBINED, ("sparsify",), ()], ids=parts_name)
def test_a_target_that_a_member_meets_at_the_start_is_refused(tmp_path: Path, at_start: tuple[str, ...]) -> None:
    """Whichever it is: over a cost of 0 there is no ratio, and whoever paid nothing was not beaten."""
    folder = write_family(tmp_path, made_up(0))
    (method, *_) = (method for method, own in PARTS.items() if own == at_start)
    path = folder / "results.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [
        {**record, "value": TARGET} if (record["method"], record["step"]) == (method, 0) else record
        for record in records
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in changed))
    with pytest.raises(ConfigError, match=rf"met before the first step of {method}.*--target"):
        result_of(folder)
