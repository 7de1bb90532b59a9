"""``thinwire compare``: who executes it, and how it ends."""

import functools
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch.distributed as dist

from thinwire.cli.application import console, fill, numbers, say
from thinwire.cli.clients import read_clients
from thinwire.cli.destination import Destination
from thinwire.cli.folders import COMPARISON, Kind, refuse_another
from thinwire.cli.progress import Meter, short_time
from thinwire.cli.record_log import RecordLog
from thinwire.cli.reporting import Exports, show_report
from thinwire.cli.studies import study_text
from thinwire.cli.warning import show_warning
from thinwire.distributed import Transport
from thinwire.errors import ConfigError
from thinwire.experiments.comparison_runner import ComparisonRunner, progress_of
from thinwire.experiments.estimate import estimate
from thinwire.experiments.executors import Executor, LocalExecutor, ProcessExecutor, default_jobs
from thinwire.experiments.launch import is_lead, join, launch
from thinwire.experiments.ray_executor import RayExecutor
from thinwire.experiments.search import MAX_EXTENSIONS
from thinwire.experiments.settings import TunedOption, option_choices
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task, all_names, find_task, load_task, reads_files
from thinwire.integrations.sinks import check_sink
from thinwire.machines import Machines
from thinwire.methods import CATALOG, parse_method
from thinwire.network import Network
from thinwire.report import TerminalColumn, TerminalTable, print_fitted
from thinwire.worker import needs_server

TUNED = ("choco.gamma=0.05,0.1,0.3", "easgd.alpha=0.03,0.06,0.1")
"""Options on whose best value their papers say little, and which decide what these methods do."""
LARGE_NUMEL = 10_000_000
"""Parameters from which on a training is left to GPUs."""
ADAPTIVE_RATES = (0.0003, 0.001, 0.003, 0.01)
"""Tried with Adam and its kin, unless others are given: the size of a step, whatever the task."""


def refuse_swapped(task: str, methods: Sequence[str]) -> None:
    """Refuse a task among the methods, or a method as the task.

    Raises:
        ConfigError: there is one.
    """
    names = all_names()
    for method in methods:
        if method.partition(":")[0].strip() in names:
            raise ConfigError(f"{method} is a task, not a method; write --task {method}")
    if task.partition(":")[0].strip() in [row.name for row in CATALOG]:
        raise ConfigError(f"{task} is a method, not a task; the tasks are {', '.join(names)}")


def compare_as_asked(given: Mapping[str, Any]) -> None:
    """Make a comparison of the options of the command, by parameter, and execute it.

    Raises:
        ConfigError: something that cannot be, or cannot be read.
    """
    if not given["methods"]:
        raise ConfigError("no methods were given; name some, or a study file with -f. See: thinwire methods")
    if not is_lead():
        warnings.simplefilter("ignore")  # the process beside it shows the same
    refuse_swapped(given["task"], given["methods"])
    run_as_asked(given, COMPARISON, lambda comparison: {})


def run_as_asked(given: Mapping[str, Any], kind: Kind, more_files: Callable[[Comparison], Mapping[str, str]]) -> None:
    """Make the comparison of the options, and execute it or say what it would take.

    Args:
        given: the options, by parameter.
        kind: what is to lie in the folder.
        more_files: what is kept in the folder beside the study, of the comparison.

    Raises:
        ConfigError: something that cannot be, or cannot be read.
    """
    jobs, steps, loaded = read_jobs(given["jobs"]), given["steps"], load_task(given["task"], data=given["data"])
    shared = shared_options(given, loaded)
    choices = shared["lrs"], shared["optimizers"]
    _warn_without_effect(given, tuned=any(len(each) > 1 for each in choices) or bool(shared["tune"]))
    defaults = {"tune_steps": steps, "evaluate_every": max(1, steps // 20)}
    missing = {name: default for name, default in defaults.items() if given[name] is None}
    clients = read_clients(given)
    taking_turns = {"clients": clients, **({"workers": clients.per_round} if clients else {})}
    comparison = fill(Comparison, given, {**shared, **missing, **taking_turns})
    if given["dry_run"]:
        show_estimate(comparison, loaded, jobs)
        return
    if given["log"]:
        check_sink(given["log"])
    if given["out"]:
        refuse_another(given["out"], kind)
    destination = Destination(
        folder=given["out"] or Path("runs") / f"{given['task'].replace(':', '-')}{kind.suffix}",
        kind=kind,
        command=shlex.join(["thinwire", *sys.argv[1:]]),
        files={"study.toml": study_text({**given, "workers": None} if clients else given), **more_files(comparison)},
        exports=Exports(given["json_file"], given["csv_file"], given["latex_file"]),
        is_named=given["out"] is not None,
        log=given["log"] or "",
    )
    start(comparison, loaded, destination, _simulating(given.get("on") or "", jobs))


def _simulating(on: str, jobs: int) -> Executor:
    """Who simulates runs: this machine, or Ray."""
    kind, _, address = on.partition(":")
    if kind not in ("", "ray"):
        raise ConfigError(f"--on {on} was given; it is ray, or ray:ADDRESS for a cluster that runs (ray:auto finds it)")
    return RayExecutor(jobs, address) if kind else LocalExecutor(jobs)


def read_jobs(asked: int | None) -> int:
    """How many simulations run at a time: as many as was asked for, or as there are processors.

    Raises:
        ConfigError: fewer than one.
    """
    if asked is not None and asked < 1:
        raise ConfigError(f"--jobs {asked} was given; it must be at least 1")
    return default_jobs() if asked is None else asked


def shared_options(given: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """The fields of a comparison that ``compare`` and ``speedup`` take from options of the same names.

    Raises:
        ConfigError: a value that cannot be read.
    """
    methods, rates = tuple(given["methods"]), tuple(sorted(numbers(given["lrs"], float, "--lrs")))
    return {
        "methods": methods,
        "optimizers": separated(given["optimizers"]),
        "tune": fitting(separated(given["tune"]), methods),
        "data": given["data"] if reads_files(given["task"]) else None,
        "seeds": numbers(given["seeds"], int, "--seeds"),
        "lrs": rates or tuple(sorted(task.learning_rates)),
        "adaptive_lrs": rates or ADAPTIVE_RATES,
        "network": Network.parse(given["network"] or "100Mbit,20ms"),
        "compute": Machines.parse(given["compute"] or "10ms"),
        "codec": given["codec"] or "measured",
        "overlap": str(given["overlap"] or "ddp"),
        "batch_size": task.batch_size if given["batch_size"] is None else given["batch_size"],
    }


def show_estimate(comparison: Comparison, task: Task, jobs: int) -> None:
    """Say what a comparison would take, without beginning it."""
    if comparison.engine != "simulate":
        raise ConfigError("--dry-run times simulated steps; leave out --engine processes")
    warn_of_gpu(comparison.task, task)
    found = estimate(comparison, task, lambda method: print(f"timing {method}", file=sys.stderr, flush=True))
    columns = {
        "tuning\nruns": [f"{each.num_tuning_runs:,}" for each in found],
        "final\nruns": [f"{each.num_final_runs:,}" for each in found],
        "steps": [f"{each.num_steps:,}" for each in found],
        "processor\nseconds": [f"{each.seconds:,.0f}" for each in found],
    }
    names = TerminalColumn(header="method", cells=[each.method for each in found], is_name=True)
    numbers = [TerminalColumn(header=header, cells=cells) for header, cells in columns.items()]
    print_fitted(TerminalTable(columns=[names, *numbers]), console)
    used = min(jobs, default_jobs())
    total = sum(each.seconds for each in found)
    say(
        f"about {short_time(total / used)} with {used} at a time; up to {MAX_EXTENSIONS} more learning rates are tried "
        "where the best one lies at the end of those given"
    )


def warn_of_gpu(name: str, task: Task) -> None:
    """Warn of what takes hours on processors, where comparisons train."""
    row = find_task(name)
    numel = sum(param.numel() for param in task.model(0).parameters())
    if row is not None and row.gpu and numel >= LARGE_NUMEL:
        warnings.warn(
            f"the model of {task.name} has {numel:,} parameters, and {row.gpu} is worth its time on a GPU only; "
            "comparisons train on processors, so that this is for gradients (thinwire record) and a few steps. Train a "
            "model of this size by your own script, with thinwire.synchronize or thinwire.compress_ddp",
            stacklevel=2,
        )


def separated(text: str) -> tuple[str, ...]:
    """What stands between semicolons, since commas separate options.

    Example:
        >>> separated("sgd; sgd:momentum=0.9,nesterov=yes")
        ('sgd', 'sgd:momentum=0.9,nesterov=yes')
    """
    return tuple(part.strip() for part in text.split(";") if part.strip())


def fitting(asked: Sequence[str], methods: Sequence[str]) -> tuple[str, ...]:
    """Those options that some method leaves open; of the others a warning, unless nobody asked for them."""
    kept = []
    for each in () if asked == ("none",) else asked or TUNED:
        if any(option_choices(method, [TunedOption.parse(each)]) != [""] for method in methods):
            kept.append(each)
        elif asked:
            warnings.warn(f"--tune {each} has no effect: no method leaves that option open", stacklevel=2)
    return tuple(kept)


def _warn_without_effect(given: Mapping[str, Any], *, tuned: bool) -> None:
    if given["tune_steps"] is not None and not tuned:
        warnings.warn("--tune-steps has no effect with a single learning rate, which is not tuned", stacklevel=2)
    for name in ("network", "compute", "codec", "overlap", "jobs", "on") if given.get("engine") == "processes" else ():
        if given.get(name):
            warnings.warn(f"--{name} has no effect with --engine processes", stacklevel=2)


def start(comparison: Comparison, task: Task, destination: Destination, simulating: Executor) -> None:
    """Execute a comparison by its engine, by ``simulating`` or in processes of its own, and report it."""
    if dist.is_torchelastic_launched() and comparison.engine == "processes":
        join(functools.partial(_compare_in_process, comparison, task, destination))
        return
    if comparison.engine == "simulate":
        _compare(comparison, task, destination, simulating)
        return
    destination = destination.settled(comparison, LocalExecutor(1))
    # Everything that can be refused is refused here, once, before any process starts.
    ComparisonRunner(
        comparison, task, destination.folder, LocalExecutor(1), command=destination.command, watch=lambda *_: None
    )
    del task  # every process loads its own; one here would only take memory
    launch(_num_processes(comparison), functools.partial(_compare_in_child, comparison, destination))


def _compare_in_child(comparison: Comparison, destination: Destination, transport: Transport) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the command has loaded the task too, and shown its warnings
        task = load_task(comparison.task, data=comparison.data)
    if transport.rank == 0:
        warnings.showwarning = show_warning
    else:
        warnings.simplefilter("ignore")
    _compare_in_process(comparison, task, destination, transport)


def _compare_in_process(comparison: Comparison, task: Task, destination: Destination, transport: Transport) -> None:
    if transport.size != _num_processes(comparison):
        server = (
            ", and a server for the asynchronous methods" if _num_processes(comparison) > comparison.workers else ""
        )
        raise ConfigError(
            f"--workers {comparison.workers} was given{server}, but {transport.size} processes were started"
        )
    _compare(comparison, task, destination, ProcessExecutor(transport, comparison.workers))


def _num_processes(comparison: Comparison) -> int:
    """One for each worker, and one for the server if a method has one."""
    return comparison.workers + any(needs_server(parse_method(method)) for method in comparison.methods)


def _compare(comparison: Comparison, task: Task, destination: Destination, executor: Executor) -> None:
    destination = destination.settled(comparison, executor)
    logs = RecordLog(destination.log) if destination.log and executor.is_main else nullcontext()
    with Meter(enabled=executor.is_main) as meter, logs as log:
        watch = functools.partial(_show, meter, log)
        comparer = ComparisonRunner(
            comparison,
            task,
            destination.folder,
            executor,
            command=destination.command,
            watch=watch,
            files=destination.files,
        )
        if executor.is_main:
            destination.exports.check()
        chosen = comparer.run()
    if executor.is_main:
        if not destination.exports.replaces_table:
            for method, setting in chosen.items():
                more = "".join(f", {part}" for part in (setting.optimizer, setting.options) if part)
                say(f"learning rate {setting.lr:g}{more} taken for {method}")
        show_report(destination.folder, destination.exports)


def _show(meter: Meter, log: RecordLog | None, what: str, runs: Sequence[Run], out: Path) -> None:
    done, total = progress_of(runs, out)
    meter.show(what, done, total, "steps")
    if log is not None:
        log.look(runs, out)
