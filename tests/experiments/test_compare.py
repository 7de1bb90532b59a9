"""A whole comparison on two parameters."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import user_tasks
from command_line import run_cli

from thinwire import report
from thinwire.errors import ConfigError
from thinwire.experiments.comparison_runner import ComparisonRunner
from thinwire.experiments.executors import LocalExecutor
from thinwire.experiments.spec import Comparison, Run
from thinwire.machines import Machines
from thinwire.methods import CATALOG
from thinwire.network import Network

KEYS = [
    "method", "task", "engine", "workers", "seed", "optimizer", "options", "lr", "step", "epoch", "seconds",
    "computing_s", "message_bytes", "bytes_sent", "bytes_received", "union_density", "memory_norm", "gradient_norm",
    "first_gradient_norm", "largest_gradient_norm", "local_drift", "virtual_distance", "relative_error",
    "memory_bound", "drift_bound", "virtual_bound", "loss", "metric", "value", "top5",
]  # fmt: skip
PLAIN = Comparison(
    methods=("sgd", "topk:k=1"), task="user_tasks:bowl", workers=2, seeds=(0, 1), lrs=(0.1, 1.0, 1.5), steps=6,
    tune_steps=4, evaluate_every=2, batch_size=1,
)  # fmt: skip


def compare(comparison: Comparison, out: Path, jobs: int = 1) -> dict[str, float]:
    def watch(*_: object) -> None:
        return

    comparer = ComparisonRunner(comparison, user_tasks.bowl(), out, LocalExecutor(jobs), command="test", watch=watch)
    return {method: setting.lr for method, setting in comparer.run().items()}


def lines(out: Path, name: str = "results.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def described(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "comparison.json").read_text())
    return found


def best(records: Sequence[dict[str, Any]], method: str) -> float:
    """The rate with the lowest last value."""
    last = {record["lr"]: record["value"] for record in records if record["method"] == method}
    rate: float = min((value, lr) for lr, value in last.items() if value is not None)[1]
    return rate


def test_every_run_is_there_with_the_best_rate(tmp_path: Path) -> None:
    taken = compare(PLAIN, tmp_path)
    tuning, results = lines(tmp_path, "tuning.jsonl"), lines(tmp_path)
    assert taken == {method: best(tuning, method) for method in PLAIN.methods}
    assert taken == {method: setting["lr"] for method, setting in described(tmp_path)["chosen"].items()}
    assert all(list(record) == KEYS for record in [*tuning, *results])
    wanted = [(method, seed, step) for method in PLAIN.methods for seed in (0, 1) for step in (0, 2, 4, 6)]
    assert [(record["method"], record["seed"], record["step"]) for record in results] == wanted
    assert all(record["lr"] == taken[record["method"]] for record in results)
    assert {record["seed"] for record in tuning}.isdisjoint(PLAIN.seeds)


@pytest.mark.parametrize(("lrs", "up"), [((0.001, 0.003), True), ((1e30, 1e31), False)])
def test_the_search_goes_past_the_end_of_its_grid(lrs: tuple[float, ...], up: bool, tmp_path: Path) -> None:
    taken = compare(replace(PLAIN, methods=("sgd",), lrs=lrs), tmp_path)
    tuning = lines(tmp_path, "tuning.jsonl")
    tried = sorted({record["lr"] for record in tuning})
    assert len(tried) == len(lrs) + 3
    assert tried[-1 if up else 0] == taken["sgd"]
    if not up:
        # Numbers that overflow end a run, and the search survives it.
        assert any(record["value"] is None and record["loss"] is None for record in tuning)


def test_a_target_prefers_the_fewest_steps(tmp_path: Path) -> None:
    # 1.5 is below 0.5 first, 1.0 ends lower on the steep axis.
    target = 0.4
    taken = compare(replace(PLAIN, methods=("sgd",), target=target, tune_steps=12, evaluate_every=1), tmp_path)
    reached: dict[float, tuple[float, float]] = {}
    for record in lines(tmp_path, "tuning.jsonl"):
        steps = reached.get(record["lr"], (float("inf"), 0.0))[0]
        now = record["step"] if record["value"] <= target else float("inf")
        reached[record["lr"]] = (min(steps, now), record["value"])
    assert taken["sgd"] == min(reached, key=lambda lr: (*reached[lr], lr))


def test_optimizers_and_options_are_searched_with_learning_rates_of_their_own(tmp_path: Path) -> None:
    searched = replace(
        PLAIN, methods=("sgd", "choco", "choco:gamma=0.2"), lrs=(0.1, 0.3), adaptive_lrs=(0.01, 0.03),
        optimizers=("sgd", "sgd:momentum=0.5", "adamw"), tune=("choco.gamma=0.05,0.4",),
    )  # fmt: skip
    compare(searched, tmp_path)
    last: dict[str, dict[tuple[str, str, float], float]] = {}
    for record in lines(tmp_path, "tuning.jsonl"):
        setting = record["optimizer"], record["options"], record["lr"]
        last.setdefault(record["method"], {})[setting] = record["value"]
    for method, open_options in (("sgd", [""]), ("choco", ["gamma=0.05", "gamma=0.4"]), ("choco:gamma=0.2", [""])):
        grids = {(optimizer, options) for optimizer in searched.optimizers for options in open_options}
        assert {setting[:2] for setting in last[method]} == grids
        for optimizer, options in grids:
            rates = {0.01, 0.03} if optimizer == "adamw" else {0.1, 0.3}
            assert rates <= {lr for *grid, lr in last[method] if grid == [optimizer, options]}
        best = min(last[method], key=lambda setting, method=method: last[method][setting])  # type: ignore[misc]
        chosen = described(tmp_path)["chosen"][method]
        assert last[method][chosen["optimizer"], chosen["options"], chosen["lr"]] == last[method][best]
        finals = [record for record in lines(tmp_path) if record["method"] == method]
        assert all({name: record[name] for name in chosen} == chosen for record in finals)
    # The option does something: other values, other models.
    assert len({value for setting, value in last["choco"].items() if setting[0] == "sgd" and setting[2] == 0.1}) == 2
    assert [row.setting for row in report.summarise(report.load(tmp_path))] == [
        report.RecordedSetting(**described(tmp_path)["chosen"][method]) for method in searched.methods
    ]


def test_what_has_no_choice_is_not_searched(tmp_path: Path) -> None:
    compare(replace(PLAIN, methods=("sgd", "choco"), lrs=(0.1,), tune=("choco.gamma=0.05,0.4",)), tmp_path)
    assert {(record["method"], record["options"]) for record in lines(tmp_path, "tuning.jsonl")} == {
        ("choco", "gamma=0.05"), ("choco", "gamma=0.4"),
    }  # fmt: skip
    assert {record["method"] for record in lines(tmp_path)} == {"sgd", "choco"}


@pytest.mark.parametrize(
    "text", ["choco", "choco.gamma", "choco.gama=1", "chocho.gamma=1", "choco.gamma=1,1", "a.b=c=d"]
)
def test_an_option_that_there_is_not_cannot_be_tuned(text: str) -> None:
    with pytest.raises(ConfigError):
        replace(PLAIN, tune=(text,))
    with pytest.raises(ConfigError, match="twice"):
        replace(PLAIN, tune=("choco.gamma=0.1", "choco.gamma=0.2"))


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    compare(PLAIN, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/records.jsonl")}
    first = lines(tmp_path)
    compare(replace(PLAIN, methods=("sgd", "qsgd", "topk:k=1")), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [record for record in lines(tmp_path) if record["method"] != "qsgd"] == first
    assert {record["method"] for record in lines(tmp_path)} == {"sgd", "qsgd", "topk:k=1"}


def test_results_do_not_depend_on_the_number_of_jobs(tmp_path: Path) -> None:
    comparison = replace(PLAIN, lrs=(0.1,))
    for jobs in (1, 2):
        compare(comparison, tmp_path / str(jobs), jobs)
    for name in ("results.jsonl", "tuning.jsonl", "comparison.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


class Stops(Exception):
    """Ends a comparison at a chosen point."""


def test_a_comparison_stopped_at_any_point_can_be_reported(tmp_path: Path) -> None:
    compare(PLAIN, tmp_path)
    chosen, first = described(tmp_path)["chosen"], lines(tmp_path)

    for wanted, methods in (("training", ("sgd", "topk:k=1", "qsgd")), ("tuning", ("qsgd", "sgd"))):

        def stops(what: str, runs: Sequence[Run], out: Path, wanted: str = wanted) -> None:
            if what == wanted:
                raise Stops

        changed = replace(PLAIN, methods=methods)
        comparer = ComparisonRunner(changed, user_tasks.bowl(), tmp_path, LocalExecutor(1), command="test", watch=stops)
        with pytest.raises(Stops):
            comparer.run()
        loaded = report.load(tmp_path)
        assert loaded.methods == methods
        assert {record["method"] for record in lines(tmp_path, "tuning.jsonl")} <= set(methods)
        assert [line for line in lines(tmp_path) if line["method"] != "qsgd"] == [
            line for line in first if line["method"] in methods
        ]
        assert described(tmp_path)["chosen"]["sgd"] == chosen["sgd"]


def test_simulated_settings_are_no_part_of_a_comparison_of_processes(tmp_path: Path) -> None:
    def make(comparison: Comparison) -> ComparisonRunner:
        executor = LocalExecutor(1)  # starts nothing; only what is refused matters here
        return ComparisonRunner(
            comparison, user_tasks.bowl(), tmp_path, executor, command="test", watch=lambda *_: None
        )

    before = replace(PLAIN, engine="processes", lrs=(0.1,))
    make(before).run()
    make(replace(before, network=Network(1e3, 1.0), compute=Machines(9.0)))
    with pytest.raises(ConfigError, match=r"batch_size 1, now 2"):
        make(replace(before, batch_size=2))


OPTIONS = {
    "network": ("80kbit,30ms", asdict(Network(1e4, 0.03)), "network"),
    "codec": ("free", "free", "codec"),
    "overlap": ("none", "none", "overlap"),
    "compute": ("7ms,slow=1x1", asdict(Machines(0.007, slow=((1, 1.0),))), "compute"),
    "batch-size": ("4", 4, "batch_size"),
    "sharding": ("sorted", "sorted", "sharding"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_the_command_line_reaches_the_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: tuple[str, ...] = ("--task", "user_tasks:pulled", "--workers", "2", "--steps", "4", "--evaluate-every", "2")
    plain += ("--lrs", "0.1", "--seeds", "0", "--jobs", "1")
    value, wanted, field = OPTIONS[name]
    assert run_cli(monkeypatch, "compare", "sgd", *plain, "--out", str(tmp_path / "0")) == 0
    assert run_cli(monkeypatch, "compare", "sgd", *plain, "--out", str(tmp_path / "1"), f"--{name}", value) == 0
    assert described(tmp_path / "1")[field] == json.loads(json.dumps(wanted))
    assert described(tmp_path / "0")[field] != wanted
    for out in (tmp_path / "0", tmp_path / "1"):
        made = described(out)
        for record in lines(out):
            # Each step sums the gradient: to the owners of the shards and back; during backward, or after it.
            compute_s = made["compute"]["compute_s"]
            exchange_s = 2 * made["network"]["latency_s"]
            if record["step"]:
                exchange_s += record["bytes_sent"] / record["step"] / made["network"]["bandwidth_Bps"]
            behind = 2 / 3 * compute_s if made["overlap"] == "ddp" else 0.0
            assert record["seconds"] == pytest.approx(record["step"] * (compute_s - behind + max(behind, exchange_s)))
            assert record["epoch"] == record["step"] * made["batch_size"] * 2 / 64
    before, now = ([record["value"] for record in lines(tmp_path / out)] for out in "01")
    # Other examples give another model; the clock does not.
    assert (before == now) == (name in ("network", "compute", "codec", "overlap"))


def test_exchanges_are_charged_what_compressing_takes(tmp_path: Path) -> None:
    """At the last step the clock is ahead by the measured seconds of each exchange; a resumed run measures nothing."""
    asked = replace(PLAIN, methods=("sgd", "topk:k=1", "topk:k=1,every=3"), lrs=(0.1,), network=Network(1e9, 0.001))
    seconds: dict[str, dict[str, list[float]]] = {}
    for codec in ("free", "3x"):
        out = tmp_path / codec
        compare(replace(asked, codec=codec), out)
        ends = [record for record in lines(out) if record["step"] == 6]
        seconds[codec] = {
            method: [record["seconds"] for record in ends if record["method"] == method] for method in asked.methods
        }
    charged = described(tmp_path / "3x")["codec_s"]
    assert described(tmp_path / "free")["codec_s"] == {}
    assert charged["sgd"] == [0.0, 0.0]
    for method, num_exchanges in (("sgd", 6), ("topk:k=1", 6), ("topk:k=1,every=3", 2)):
        # Both workers wait for the slower one at the next exchange.
        ahead = num_exchanges * max(charged[method])
        for free, later in zip(seconds["free"][method], seconds["3x"][method], strict=True):
            assert later - free == pytest.approx(ahead, abs=1e-9)
    before = lines(tmp_path / "3x")
    compare(replace(asked, codec="3x", seeds=(0, 1, 2)), tmp_path / "3x")
    assert described(tmp_path / "3x")["codec_s"] == charged
    assert [record for record in lines(tmp_path / "3x") if record["seed"] < 2] == before
    with pytest.raises(ConfigError, match="codec 3x, now free"):
        compare(asked, tmp_path / "3x")


def test_gradients_are_exchanged_during_backward_and_displacements_after_it(tmp_path: Path) -> None:
    """With overlap a step takes forward, then the longer of backward and exchange; without, one after the other."""
    methods = ("sgd", "topk:k=1", "local-sgd:every=2")
    for latency_s, network in ((0.001, Network(1e12, 0.001)), (0.5, Network(1e12, 0.5))):
        for overlap in ("none", "ddp"):
            out = tmp_path / f"{overlap}-{latency_s}"
            compare(
                replace(PLAIN, methods=methods, lrs=(0.1,), network=network, compute=Machines(0.3), overlap=overlap),
                out,
            )
            ends = {record["method"]: record["seconds"] for record in lines(out) if record["step"] == 6}
            for method, latencies, num_exchanges in (("sgd", 2, 6), ("topk:k=1", 1, 6), ("local-sgd:every=2", 2, 3)):
                exchange_s = latencies * latency_s
                behind = overlap == "ddp" and "local" not in method
                step_s = 0.1 + max(0.2, exchange_s) if behind else 0.3 + exchange_s
                plain_s = (6 - num_exchanges) * 0.3
                assert ends[method] == pytest.approx(num_exchanges * step_s + plain_s, rel=1e-6), (method, overlap)


@pytest.mark.parametrize("text", ["", "fast", "x", "-1x", "2", "1e3x"])
def test_a_codec_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give measured, free"):
        replace(PLAIN, codec=text)


def test_the_table_of_methods_is_complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(monkeypatch, "methods") == 0
    shown = capsys.readouterr().out
    for row in CATALOG:
        assert row.name in shown
        assert all(option in shown for option in row.options)


def test_a_report_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(replace(PLAIN, lrs=(0.1,)), tmp_path)
    assert run_cli(monkeypatch, "report", str(tmp_path)) == 0
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert "topk:k=1" in capsys.readouterr().out
