"""``thinwire speedup``: a comparison for each number of workers, then what they say together."""

import functools
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thinwire.cli.application import fill, numbers
from thinwire.cli.comparing import read_jobs, refuse_swapped, shared_options
from thinwire.cli.destination import own_number, tell_number
from thinwire.cli.folders import SPEEDUP, refuse_another
from thinwire.cli.progress import Meter
from thinwire.cli.reporting import Exports, show_speedup
from thinwire.errors import ConfigError
from thinwire.experiments.comparison_runner import ComparisonRunner, progress_of
from thinwire.experiments.executors import LocalExecutor
from thinwire.experiments.run_folders import Holder, folder_of, holder
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task, load_task
from thinwire.files import StrPath
from thinwire.scaling import subfolder


def speed_up_as_asked(given: Mapping[str, Any]) -> None:
    """Run the comparisons that the options of the command ask for, then write their page and print their tables.

    Everything that can be refused is refused before the first of them begins.

    Raises:
        ConfigError: something that cannot be, or cannot be read.
    """
    refuse_swapped(given["task"], given["methods"])
    workers = read_workers(given["workers"])
    task = load_task(given["task"], data=given["data"])
    comparisons = _comparisons(given, workers, task)
    if given["out"]:
        refuse_another(given["out"], SPEEDUP)
    base = Path("runs") / f"{given['task'].replace(':', '-')}{SPEEDUP.suffix}"
    out = given["out"] or _numbered(base, comparisons)
    command = shlex.join(["thinwire", *sys.argv[1:]])
    executor = LocalExecutor(read_jobs(given["jobs"]))
    with Meter() as meter:
        runners = [
            ComparisonRunner(
                comparison, task, subfolder(out, comparison.workers), executor,
                command=command, watch=functools.partial(_show, meter, comparison.workers),
            )
            for comparison in comparisons
        ]  # fmt: skip
        exports = Exports(json=given["json_file"])
        exports.check()
        for runner in runners:
            runner.run()
    show_speedup(out, exports, workers)


def read_workers(text: str) -> tuple[int, ...]:
    """Numbers of workers, ascending from 1.

    Raises:
        ConfigError: they cannot be read, are fewer than two, do not begin with 1 or do not ascend.

    Example:
        >>> read_workers("1,2,4")
        (1, 2, 4)
    """
    workers = numbers(text, int, "--workers")
    if len(workers) < 2 or workers[0] != 1 or list(workers) != sorted(set(workers)):
        raise ConfigError(
            f"--workers {text} was given; a speed-up is over one worker, so give 1 and then larger numbers in "
            "ascending order, such as 1,2,4,8"
        )
    return workers


def read_of_each(text: str, option: str, workers: Sequence[int]) -> tuple[int, ...]:
    """A number for each number of workers, from as many or from one for all.

    Raises:
        ConfigError: it cannot be read, or has another length.

    Example:
        >>> read_of_each("300", "--steps", (1, 2)), read_of_each("300,200", "--steps", (1, 2))
        ((300, 300), (300, 200))
    """
    values = numbers(text, int, option)
    if len(values) not in (1, len(workers)):
        raise ConfigError(
            f"{option} {text} has {len(values)} numbers; give one for all, or one for each of the {len(workers)} "
            f"numbers of workers {','.join(map(str, workers))}"
        )
    return values * len(workers) if len(values) == 1 else values


def _comparisons(given: Mapping[str, Any], workers: Sequence[int], task: Task) -> list[Comparison]:
    """What is run with each number of workers."""
    steps = read_of_each(given["steps"], "--steps", workers)
    tune_steps = read_of_each(given["tune_steps"], "--tune-steps", workers) if given["tune_steps"] else steps
    every = tuple(max(1, each // 20) for each in steps)
    if given["evaluate_every"]:
        every = read_of_each(given["evaluate_every"], "--evaluate-every", workers)
    alike = shared_options(given, task)
    return [
        fill(Comparison, given, {**alike, "workers": count, "steps": own, "tune_steps": tuned, "evaluate_every": often})
        for count, own, tuned, often in zip(workers, steps, tune_steps, every, strict=True)
    ]


def _numbered(base: Path, comparisons: Sequence[Comparison]) -> Path:
    """The folder that holds this speed-up, or the first free one, of ``base``, ``base-2`` and so on."""

    def look(out: StrPath) -> Holder:
        held = {holder(subfolder(out, each.workers), each) for each in comparisons}
        return "another" if "another" in held else "this" if "this" in held else "none"

    folder = folder_of(base, own_number(base, SPEEDUP, look))
    if folder != base:
        tell_number(folder, base, SPEEDUP)
    return folder


def _show(meter: Meter, workers: int, what: str, runs: Sequence[Run], out: Path) -> None:
    done, total = progress_of(runs, out)
    meter.show(f"{what} with {workers}", done, total, "steps")
