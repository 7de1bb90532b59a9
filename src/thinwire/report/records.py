"""What a comparison wrote, read back and checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.report.fields import (
    field,
    finite,
    json_object,
    number,
    number_or_nan,
    printable,
    read_text,
    texts,
    whole_numbers,
)
from thinwire.report.settings import (
    RecordedClients,
    RecordedMachines,
    RecordedMetric,
    RecordedNetwork,
    RecordedSetting,
    recorded_clients,
    recorded_exchanges,
    recorded_links,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One evaluation of one run.

    Bytes are cumulative per worker, the mean over workers. ``seconds`` are virtual for the simulator and
    measured for processes, of which ``computing_s`` went into forward and backward. The norms, and what bounds them,
    are root mean squares over workers. They, ``loss``, ``value`` and ``top5`` are NaN where the file has null, NaN or
    an infinity.
    """

    method: str
    setting: RecordedSetting | None
    seed: int
    step: int
    epoch: float
    seconds: float
    computing_s: float
    message_bytes: float
    link_bytes: float
    union_density: float
    memory_norm: float
    local_drift: float
    virtual_distance: float
    memory_bound: float
    drift_bound: float
    virtual_bound: float
    relative_error: float
    loss: float
    value: float
    top5: float

    @property
    def finite(self) -> bool:
        """Whether both the loss and the metric are numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedComparison:
    """Several methods on one task: how they were run, the search of learning rates, the final runs.

    It is what came out, read from files that anybody may have written, so that every value is checked and named. What
    is to be run, :class:`thinwire.experiments.spec.Comparison`, knows methods, tasks and torch, for which no report
    waits.

    Args:
        methods: what the user typed, in that order, without repeats.
        chosen: what the search took for each method's final runs; a method may be absent if none worked.
        dense: the methods that send every number, in 32 or 16 bits; ratios are against the fastest of them.
        target: the value to be reached, None if the user gave none.
        results: every evaluation of the final runs, ordered by method, seed and step.
        codec_s: what an exchange of each method was charged for compressing and decoding: worker 0, each other one.
        exchanges: how each method's messages are exchanged: the type of its exchange, and of those inside it.
        links: other links, and the seconds that a step of each method takes on them.
        clients: who took turns as workers; None if these were always the same.
        overlap: ``ddp`` if exchanges of gradients went on during backward, else ``none``.
        tuning: for every method what was tried and the value that it was judged by, NaN where it diverged; ascending.
    """

    command: str
    task: str
    metric: RecordedMetric
    workers: int
    seeds: tuple[int, ...]
    steps: int
    engine: str
    network: RecordedNetwork | None
    compute: RecordedMachines | None
    target: float | None
    optimizers: tuple[str, ...]
    batch_size: int | None
    sharding: str | None
    clients: RecordedClients | None
    lr_schedule: str | None
    average: str | None
    num_parameters: int | None
    methods: tuple[str, ...]
    chosen: Mapping[str, RecordedSetting]
    dense: tuple[str, ...]
    codec_s: Mapping[str, tuple[float, float]]
    exchanges: Mapping[str, tuple[str, ...]]
    links: tuple[tuple[str, Mapping[str, float]], ...]
    overlap: str
    notes: tuple[str, ...]
    results: tuple[Record, ...]
    tuning: Mapping[str, tuple[tuple[RecordedSetting, float], ...]]

    def runs(self, method: str) -> list[list[Record]]:
        """The final runs of ``method``, one list of evaluations per seed, by step."""
        by_seed: dict[int, list[Record]] = {}
        for record in self.results:
            if record.method == method:
                by_seed.setdefault(record.seed, []).append(record)
        return list(by_seed.values())


def load(folder: StrPath) -> RecordedComparison:
    """Read ``comparison.json``, ``results.jsonl`` and ``tuning.jsonl`` of ``folder``.

    Unknown keys are ignored. ``tuning.jsonl`` may be empty: then no learning rate was searched.

    Raises:
        ConfigError: a file is missing or empty, or a line is not JSON, lacks a key or contradicts another.
    """
    folder = Path(folder)
    path = folder / "comparison.json"
    about = json_object(read_text(path), str(path))
    where = str(path)
    methods = tuple(dict.fromkeys(texts(about, "methods", where)))
    if not methods:
        raise ConfigError(f"{where}: 'methods' is empty; a comparison has at least one method")
    dense = texts(about, "dense", where)
    for name in dense:
        if name not in methods:
            raise ConfigError(f"{where}: the dense method {name!r} is none of the methods {', '.join(methods)}")
    results = _records(folder / "results.jsonl", methods)
    if not results:
        raise ConfigError(f"{folder / 'results.jsonl'}: no evaluation in it; run the comparison again")
    _refuse_repeats(folder / "results.jsonl", results)
    order = {name: index for index, name in enumerate(methods)}
    metric = field(about, "metric", where, dict)
    chosen = field(about, "chosen", where, dict)
    return RecordedComparison(
        command=field(about, "command", where, str),
        task=field(about, "task", where, str),
        metric=RecordedMetric(
            name=field(metric, "name", where, str),
            higher_is_better=field(metric, "higher_is_better", where, bool),
            logarithmic=field(metric, "logarithmic", where, bool),
        ),
        workers=field(about, "workers", where, int),
        seeds=whole_numbers(about, "seeds", where),
        steps=field(about, "steps", where, int),
        engine=field(about, "engine", where, str),
        network=_network(field(about, "network", where, dict, optional=True), where),
        compute=_machines(field(about, "compute", where, dict, optional=True), where),
        target=number(about, "target", where, optional=True),
        optimizers=texts(about, "optimizers", where),
        batch_size=field(about, "batch_size", where, int, optional=True),
        sharding=field(about, "sharding", where, str, optional=True),
        clients=recorded_clients(about, where),
        lr_schedule=field(about, "lr_schedule", where, str, optional=True),
        average=field(about, "average", where, str, optional=True),
        num_parameters=field(about, "num_parameters", where, int, optional=True),
        methods=methods,
        chosen={printable(name): _setting(field(chosen, name, where, dict), where) for name in chosen},
        dense=dense,
        exchanges=recorded_exchanges(about, where),
        links=recorded_links(about, where),
        overlap=field(about, "overlap", where, str),
        codec_s=_codec_s(field(about, "codec_s", where, dict), where),
        notes=texts(about, "notes", where),
        results=tuple(sorted((record for _, record in results), key=lambda r: (order[r.method], r.seed, r.step))),
        tuning=_tuning(_records(folder / "tuning.jsonl", methods)),
    )


def _since(entry: dict[str, Any], key: str, where: str) -> float:
    """A number that records have not had from the first; NaN in those that lack it."""
    return number_or_nan(entry, key, where) if key in entry else math.nan


def _refuse_repeats(path: Path, records: list[tuple[int, Record]]) -> None:
    seen: dict[tuple[str, int, int], int] = {}
    for line, record in records:
        key = (record.method, record.seed, record.step)
        if key in seen:
            raise ConfigError(
                f"{path}, line {line}: repeats line {seen[key]} ({record.method}, seed {record.seed}, "
                f"step {record.step}); two comparisons share the file"
            )
        seen[key] = line


def _tuning(records: list[tuple[int, Record]]) -> dict[str, tuple[tuple[RecordedSetting, float], ...]]:
    judged: dict[str, dict[RecordedSetting, float]] = {}
    for _, record in records:
        if record.setting is not None:
            # Later lines replace earlier ones: the last evaluation is what was judged.
            judged.setdefault(record.method, {})[record.setting] = record.value if record.finite else math.nan
    return {method: tuple(sorted(values.items())) for method, values in judged.items()}


def _setting(entry: dict[str, Any], where: str) -> RecordedSetting:
    return RecordedSetting(
        optimizer=field(entry, "optimizer", where, str),
        options=field(entry, "options", where, str),
        lr=finite(entry, "lr", where),
    )


def _codec_s(entry: dict[str, Any], where: str) -> dict[str, tuple[float, float]]:
    found = {}
    for name in entry:
        pair = field(entry, name, where, list)
        if len(pair) != 2:
            raise ConfigError(f"{where}: 'codec_s' of {printable(name)} must be two numbers, got {len(pair)}")
        found[printable(name)] = (finite({name: pair[0]}, name, where), finite({name: pair[1]}, name, where))
    return found


def _network(entry: dict[str, Any] | None, where: str) -> RecordedNetwork | None:
    if entry is None:
        return None
    return RecordedNetwork(
        bandwidth_Bps=finite(entry, "bandwidth_Bps", where),
        latency_s=finite(entry, "latency_s", where),
        uplink_Bps=number(entry, "uplink_Bps", where, optional=True),
        num_others=len(field(entry, "links", where, list)),
    )


def _machines(entry: dict[str, Any] | None, where: str) -> RecordedMachines | None:
    if entry is None:
        return None
    wavering = finite(entry, "jitter", where) or finite(entry, "stall_share", where)
    return RecordedMachines(
        compute_s=finite(entry, "compute_s", where),
        are_equal=not wavering and not field(entry, "slow", where, list),
    )


def _records(path: Path, methods: tuple[str, ...]) -> list[tuple[int, Record]]:
    """Every record with the number of its line, from 1."""
    records = []
    whole = read_text(path, may_be_empty=path.name == "tuning.jsonl")
    # Not splitlines, which also cuts at separators that JSON allows inside of strings.
    for line, text in enumerate(whole.split("\n"), start=1):
        if not text.strip():
            continue
        where = f"{path}, line {line}"
        entry = json_object(text, where)
        record = Record(
            method=field(entry, "method", where, str),
            setting=_setting(entry, where),
            seed=field(entry, "seed", where, int),
            step=field(entry, "step", where, int),
            epoch=finite(entry, "epoch", where),
            seconds=finite(entry, "seconds", where),
            computing_s=_since(entry, "computing_s", where),
            message_bytes=finite(entry, "message_bytes", where),
            link_bytes=finite(entry, "bytes_sent", where) + finite(entry, "bytes_received", where),
            union_density=_since(entry, "union_density", where),
            memory_norm=_since(entry, "memory_norm", where),
            local_drift=_since(entry, "local_drift", where),
            virtual_distance=_since(entry, "virtual_distance", where),
            memory_bound=_since(entry, "memory_bound", where),
            drift_bound=_since(entry, "drift_bound", where),
            virtual_bound=_since(entry, "virtual_bound", where),
            relative_error=_since(entry, "relative_error", where),
            loss=number_or_nan(entry, "loss", where),
            value=number_or_nan(entry, "value", where),
            top5=_since(entry, "top5", where),
        )
        if record.method not in methods:
            raise ConfigError(
                f"{where}: the method {record.method!r} is not in comparison.json, "
                f"which has {', '.join(methods)}; the files come from different comparisons"
            )
        records.append((line, record))
    return records
