"""The 14 criteria of a fair evaluation, read off what one command writes."""

import csv
import json
import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from command_line import run_cli

from thinwire import report
from thinwire.experiments.link_sweep import LINKS
from thinwire.report.figures import panels

SIGNS = "signtopk:density=5%,every=4"
METHODS = ("sgd", "bf16-sgd", SIGNS)
DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Written:
    """All that a reader of the folder finds.

    Args:
        rows: of ``--json``, by method.
        table: of ``--csv``, by method.
        about: ``comparison.json``.
        records: of the final runs.
        page: the text of the page, without tags.
        figures: titles.
        points: of ``thinwire speedup --json``.
    """

    rows: dict[str, dict[str, Any]]
    table: dict[str, dict[str, str]]
    about: dict[str, Any]
    records: list[dict[str, Any]]
    page: str
    figures: list[str]
    points: list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Written:
    out = tmp_path_factory.mktemp("criteria")
    common = ("--seeds", "0,1,2", "--jobs", "1", "--evaluate-every", "4")
    with pytest.MonkeyPatch.context() as patch:
        assert run_cli(
            patch, "compare", *METHODS, "--task", "digits", "--workers", "2", "--steps", "24", "--tune-steps", "4",
            "--lrs", "0.1,0.3", "--optimizers", "sgd; sgd:momentum=0.9", *common,
            "--out", str(out), "--json", str(out / "rows.jsonl"), "--csv", str(out / "rows.csv"),
        ) == 0  # fmt: skip
        assert run_cli(
            patch, "speedup", "sgd", "bf16-sgd", "--task", "digits", "--workers", "1,2", "--steps", "4", "--lrs", "0.3",
            "--target", "0.9", *common, "--out", str(out / "workers"), "--json", str(out / "points.jsonl"),
        ) == 0  # fmt: skip
    page = re.sub(r"<script.*?</script>|<style.*?</style>", "", (out / "report.html").read_text(), flags=re.S)
    return Written(
        rows={row["method"]: row for row in lines(out / "rows.jsonl")},
        table={row["method"]: row for row in csv.DictReader((out / "rows.csv").read_text().splitlines())},
        about=json.loads((out / "comparison.json").read_text()),
        records=lines(out / "results.jsonl"),
        page=" ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split()),
        figures=[panel.title for panel in panels(report.load(out))],
        points=[line for line in lines(out / "points.jsonl") if line["kind"] == "point"],
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_01_time_to_accuracy_and_not_a_ratio_alone(found: Written) -> None:
    for method in ("sgd", "bf16-sgd"):  # the target is one that dense runs reach
        assert float(found.table[method]["seconds_to_target"]) == found.rows[method]["seconds_to_target"] > 0.0
    assert "accuracy against seconds" in found.figures


def test_02_dense_in_16_bits_is_a_baseline_and_gains_are_over_the_faster_one(found: Written) -> None:
    assert found.about["dense"] == ["sgd", "bf16-sgd"]
    seconds = {method: found.rows[method]["seconds_to_target"] for method in ("sgd", "bf16-sgd")}
    (baseline,) = [row for row in found.rows.values() if row["is_baseline"]]
    assert baseline["method"] == min(seconds, key=seconds.__getitem__)
    assert baseline["message_ratio"] == 1.0


def test_03_dense_is_overlapped_as_ddp_does_it(found: Written) -> None:
    assert found.about["overlap"] == "ddp"
    assert "Gradients are exchanged during backward, as DDP does it" in found.page


def test_04_compression_is_charged(found: Written) -> None:
    assert len(found.about["codec_s"][SIGNS]) == 2
    assert "Compressing and decoding are charged as measured" in found.page


def test_05_whether_an_all_reduce_serves_and_the_cost_by_workers(found: Written) -> None:
    assert {method: row["all_reduces"] for method, row in found.rows.items()} == {
        "sgd": True, "bf16-sgd": True, SIGNS: False,
    }  # fmt: skip
    assert found.rows["sgd"]["union_density"] > found.rows[SIGNS]["union_density"] > 0.0
    step_s = {(point["method"], point["workers"]): point["step"]["communication_s"] for point in found.points}
    assert step_s["sgd", 2] > step_s["bf16-sgd", 2] > step_s["sgd", 1] == step_s["bf16-sgd", 1] == 0.0


def test_06_final_accuracy_and_what_was_lost(found: Written) -> None:
    for method in METHODS:
        assert 0.0 < found.rows[method]["final_value"] <= 1.0
    base = next(row["method"] for row in found.rows.values() if row["is_baseline"])
    ends = {(each["method"], each["seed"]): each["value"] for each in found.records if each["step"] == 24}
    ahead = sum(ends[SIGNS, seed] - ends[base, seed] for seed in (0, 1, 2)) / 3
    assert found.rows[SIGNS]["against_dense"] == pytest.approx(ahead)


def test_07_all_are_tuned_alike_on_validation_data(found: Written) -> None:
    assert found.about["optimizers"] == ["sgd", "sgd:momentum=0.9"]
    assert set(found.about["chosen"]) == set(METHODS)
    assert "a search of its own on the validation split" in found.page


def test_08_three_seeds_and_intervals(found: Written) -> None:
    assert found.about["seeds"] == [0, 1, 2]
    for row in found.rows.values():
        assert row["num_runs"] == 3
        assert row["final_value_within"] > 0.0
    assert found.rows[SIGNS]["against_dense_within"] > 0.0


def test_09_task_and_size_are_stated(found: Written) -> None:
    assert f"trained digits (a model of {found.about['num_parameters']:,} parameters)" in found.page


def test_10_the_link_is_stated_and_swept(found: Written) -> None:
    assert "each on a link of 100 Mbit/s with 20 ms latency" in found.page
    swept = {each["network"]: each["seconds_per_step"] for each in found.about["links"]}
    assert tuple(swept) == LINKS
    for method in METHODS:
        near, far = swept["10Mbit,1ms"][method], swept["10Mbit,50ms"][method]
        assert far > near > swept["1Gbit,1ms"][method] > 0.0
    assert all(text in found.page for text in ("on other links, bandwidth and latency swept", *LINKS))


def test_11_the_error_of_messages_is_told_apart_from_the_metric(found: Written) -> None:
    assert found.rows["sgd"]["relative_error"] == 0.0
    assert 0.0 < found.rows[SIGNS]["relative_error"] < 1.0
    assert "(vNMSE)" in found.page


def test_12_a_model_says_when_it_helps_and_how_wrong_it_is() -> None:
    cells = [line for line in lines(DOCS / "data" / "predicted_measured.jsonl") if line["kind"] == "cell"]
    assert len({(each["mbit"], each["latency"], each["processes"], each["method"]) for each in cells}) == len(cells)
    text = (DOCS / "planner.md").read_text()
    assert shown_cells(text) == {
        (f"{each['mbit']} Mbit/s, {each['latency'].removesuffix('ms')} ms", each["processes"], each["method"]): (
            in_ms(each["predicted_s"]), in_ms(each["measured_s"])
        )
        for each in cells
    }  # fmt: skip
    errors = [abs(each["predicted_s"] / each["measured_s"] - 1) for each in cells]
    near, fair = (round(100 * sum(error <= most for error in errors) / len(errors)) for most in (0.1, 0.2))
    assert (
        f"{len(cells)} cells. {near} % of the predictions are within 10 % of what was measured, {fair} % within 20 %."
    ) in text


def shown_cells(text: str) -> dict[tuple[str, int, str], tuple[str, str]]:
    """What the tables of the page have of each link, number of processes and method: predicted and measured."""
    found: dict[tuple[str, int, str], tuple[str, str]] = {}
    heads: list[str] = []
    processes = 0
    for line in text.splitlines():
        cells = [cell.strip(" `") for cell in line.split("|")[1:-1]]
        if title := re.fullmatch(r"### (\d+) processes", line):
            processes = int(title[1])
        elif cells and cells[0] == "link":
            heads = cells
        elif cells and "Mbit/s" in cells[0]:
            for method, cell in zip(heads[1:-1], cells[1:-1], strict=True):
                both = re.fullmatch(r"\**([\d.]+) / ([\d.]+)\** \(.+ %\)", cell)
                assert both is not None, cell
                found[cells[0], processes, method] = both[1], both[2]
    return found


def in_ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}" if seconds >= 0.1 else f"{1000 * seconds:.1f}"


def test_13_bytes_are_those_of_the_link(found: Written) -> None:
    for record in found.records[1:]:
        if record["step"] and record["method"] == SIGNS:
            # Two workers: what one sends the other receives, with the length of the message.
            assert record["bytes_sent"] == record["bytes_received"] > record["message_bytes"]
    assert "over its own link" in found.page


def test_14_loss_by_samples_and_seconds_and_the_use_of_the_processor(found: Written) -> None:
    assert {"loss against samples", "loss against seconds"} <= set(found.figures)
    for method in METHODS:
        ends = [each for each in found.records if (each["method"], each["step"]) == (method, 24)]
        assert all(each["computing_s"] == pytest.approx(24 * 0.01) for each in ends)  # 10 ms a step
        share = sum(each["computing_s"] / each["seconds"] for each in ends) / 3
        assert 0.0 < share <= 1.0
        assert found.rows[method]["computing_share"] == pytest.approx(share)
    assert found.rows[SIGNS]["computing_share"] > found.rows["sgd"]["computing_share"]
