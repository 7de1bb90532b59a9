"""Numbers that go to TensorBoard, W&B (offline) and MLflow (a file store), read back with their own readers."""

import json
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import check_refused, run_cli

import thinwire
from thinwire.cli import record_log
from thinwire.experiments.records import run_folder, write_records
from thinwire.experiments.settings import Setting
from thinwire.experiments.spec import Run
from thinwire.integrations.sinks import LayerNumbers, MlflowSink, NumberSink, TensorBoardSink, WandbSink
from thinwire.methods import parse_method
from thinwire.simulator import Simulation

COMMAND = (
    "compare", "topk:k=1", "--task", "user_tasks:bowl", "--workers", "2", "--steps", "6", "--evaluate-every", "2",
    "--lrs", "0.1", "--seeds", "0,1", "--codec", "free", "--jobs", "1", "--out", "out",
)  # fmt: skip
NUMBERS = {0: {"value": 0.5, "memory/a": 1.0}, 2: {"value": 0.25}}


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "experiments"))
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    if sys.modules.get("wandb") is not None:
        sys.modules["wandb"].teardown()


def fill(sink: NumberSink) -> None:
    for step, numbers in NUMBERS.items():
        sink.log(step, numbers)
    sink.close()


def events(folder: Path) -> dict[int, dict[str, float]]:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = reader.EventAccumulator(str(folder)).Reload()
    found: dict[int, dict[str, float]] = {}
    for name in read.Tags()["scalars"]:
        for event in read.Scalars(name):
            found.setdefault(event.step, {})[name] = event.value
    return found


def metrics(folder: Path) -> dict[str, dict[int, dict[str, float]]]:
    """Of each run by its name."""
    client = pytest.importorskip("mlflow").MlflowClient(tracking_uri=folder.resolve().as_uri())
    (experiment,) = [each for each in client.search_experiments() if each.name == "thinwire"]
    found: dict[str, dict[int, dict[str, float]]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        own = found.setdefault(run.info.run_name, {})
        for name in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, name):
                own.setdefault(metric.step, {})[name] = metric.value
    return found


def expected(out: Path) -> dict[str, dict[int, dict[str, float]]]:
    """The numbers of every final run, by its name."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for path in out.glob("runs/final-*/records.jsonl"):
        for line in path.read_text().splitlines():
            record: dict[str, Any] = json.loads(line)
            kept = {name: record[name] for name in ("loss", "value", "message_bytes", "memory_norm", "seconds")}
            found.setdefault(path.parent.name, {})[record["step"]] = kept
    assert len(found) == 2
    return found


def holds(found: Mapping[int, Mapping[str, float]], wanted: Mapping[int, Mapping[str, float]]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[step][name] == pytest.approx(value, rel=1e-6)  # TensorBoard keeps 32 bits
        for step, numbers in wanted.items()
        for name, value in numbers.items()
    )


def test_tensorboard_has_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    fill(TensorBoardSink(tmp_path / "run"))
    assert events(tmp_path / "run") == NUMBERS


def test_mlflow_has_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    fill(MlflowSink(tmp_path / "store", "first", {"method": "sgd"}))
    assert metrics(tmp_path / "store") == {"first": NUMBERS}


def test_wandb_has_what_was_logged(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    fill(WandbSink(tmp_path, "first", {"method": "sgd"}, mode="offline"))
    wandb.teardown()  # as at a program's exit: W&B's own process may still be writing when a run is finished
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert wandb_rows(path) == NUMBERS


def wandb_rows(path: Path) -> dict[int, dict[str, float]]:
    """The history in W&B's own file: blocks of 32 KiB with pieces of records, as LevelDB's log has them."""
    pb2 = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, at, whole = path.read_bytes(), 7, b""
    found: dict[int, dict[str, float]] = {}
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no room for the head of a piece
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole = (b"" if kind in (1, 2) else whole) + data[at + 7 : at + 7 + length]
        at += 7 + length
        record = pb2.Record()
        if kind in (1, 4) and record.ParseFromString(whole) and record.WhichOneof("record_type") == "history":
            items = {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in record.history.item}
            kept = {name: value for name, value in items.items() if not name.startswith("_")}
            found[int(items.get("_step", record.history.step.num))] = kept
    return found


def test_a_comparison_is_logged_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    assert run_cli(monkeypatch, *COMMAND, "--log", "tensorboard") == 0
    for name, wanted in expected(Path("out")).items():
        assert holds(events(Path("out/tensorboard") / name), wanted)


def test_a_comparison_is_logged_to_mlflow_beside_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    assert run_cli(monkeypatch, *COMMAND, "--log", "mlflow") == 0
    found, wanted = metrics(Path("out/mlruns")), expected(Path("out"))
    assert found.keys() == wanted.keys()
    assert all(holds(found[name], wanted[name]) for name in wanted)


def test_the_sink_of_a_finished_run_is_closed_and_a_later_call_leaves_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: dict[str, Kept] = {}

    def kept(kind: str, folder: Path, name: str, config: Mapping[str, Any]) -> Kept:
        assert name not in opened
        opened[name] = Kept()
        return opened[name]

    monkeypatch.setattr(record_log, "open_sink", kept)
    runs = [Run("sgd", Setting("sgd", "", 0.1), seed, "final", 4) for seed in (0, 1)]

    def write(run: Run, *steps: int) -> None:
        settings = dict.fromkeys(("task", "engine", "workers", "seed", "optimizer", "options", "lr", "metric"), 0)
        lines = [{"method": "sgd", **settings, "step": step, "value": 0.5 * step} for step in steps]
        write_records(run_folder(tmp_path, run) / "records.jsonl", lines)

    write(runs[0], 0, 2, 4)
    write(runs[1], 0, 2)
    with record_log.RecordLog("wandb") as log:
        log.look(runs, tmp_path)
        first, second = (opened.pop(run.name) for run in runs)
        assert [first.is_closed, second.is_closed] == [True, False]
        assert [step for step, _ in first.rows] == [0, 2, 4]
        log.look(runs, tmp_path)
    assert [first.is_closed, second.is_closed] == [True, True]
    assert [step for step, _ in second.rows] == [0, 2]

    write(runs[1], 0, 2, 4)
    with record_log.RecordLog("wandb") as log:  # an interrupted call that goes on
        log.look(runs, tmp_path)
    assert list(opened) == [runs[1].name]
    assert opened.pop(runs[1].name).rows[-1] == (4, {"value": 2.0})
    with record_log.RecordLog("mlflow") as log:  # which has none of them
        log.look(runs, tmp_path)
    assert len(opened) == 2


def test_a_sink_that_is_not_installed_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    check_refused(
        monkeypatch,
        capsys,
        [*COMMAND, "--log", "wandb"],
        ["needs wandb, which is not installed", 'pip install "wandb"'],
    )
    assert not Path("out").exists()


class Kept:
    """A sink of one's own."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.is_closed = False

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.rows.append((step, dict(numbers)))

    def close(self) -> None:
        self.is_closed = True


def test_a_layer_report_goes_to_any_sink() -> None:
    sink = Kept()
    model = torch.nn.Linear(4, 1, bias=False)
    worker = thinwire.Worker(
        parse_method("topk:k=1"), model, torch.optim.SGD(model.parameters(), lr=0.1), rank=0, size=1, seed=0
    )
    worker.runner.watcher = thinwire.LayerReport(sink=LayerNumbers(sink))
    model(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    Simulation(1).run([worker.step()])
    ((step, numbers),) = sink.rows
    assert step == 1
    assert numbers["density/weight"] == 0.25
    assert numbers["relative_error/weight"] == pytest.approx((14 / 30) ** 0.5)
