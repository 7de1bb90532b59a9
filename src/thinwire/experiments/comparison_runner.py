"""A whole comparison: search every method's setting, then run it with every seed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from thinwire.config import to_json
from thinwire.errors import ConfigError, WorkerError
from thinwire.experiments.bound_watch import BoundWatch
from thinwire.experiments.clients.fitting import check_fits
from thinwire.experiments.codec import CodecSeconds, measure_codecs
from thinwire.experiments.executors import Executor
from thinwire.experiments.link_sweep import MAX_STEPS, links_of, sweep_links, sweep_note
from thinwire.experiments.optimizers import make_optimizer
from thinwire.experiments.plausible import check_plausible
from thinwire.experiments.records import Record, is_finished, read_records, records_of, write_records
from thinwire.experiments.run_folders import differences, made_by, read_description, refuse_unwritable
from thinwire.experiments.search import SettingSearch
from thinwire.experiments.settings import Setting, read_codec, with_options
from thinwire.experiments.sharding import make_shards
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task
from thinwire.files import FolderLock, StrPath, write_atomically
from thinwire.layout import Layout
from thinwire.methods import Method, check_method, is_dense, parse_method
from thinwire.random import Key

Watch = Callable[[str, Sequence[Run], Path], None]


class ComparisonRunner:
    """Executes a comparison in a folder, and goes on where an earlier, interrupted call stopped.

    Every run keeps its records in ``out/runs/``; finished ones are not run again. Methods, seeds, learning
    rates and the target may change from call to call; anything else that differs is refused, also the versions
    of thinwire, torch and Python. ``files`` are texts by name that are kept in the folder too.

    Raises:
        ConfigError: the folder holds another comparison or cannot be written, a method or optimizer does not fit
            the task's model, there are more workers than examples, or what was asked for cannot be meant.
    """

    def __init__(
        self,
        comparison: Comparison,
        task: Task,
        out: StrPath,
        executor: Executor,
        *,
        command: str,
        watch: Watch,
        files: Mapping[str, str] | None = None,
    ) -> None:
        self.comparison = comparison
        self.task = task
        self.out = Path(out)
        self.executor = executor
        self._command = command
        self._files = dict(files or {})
        self._watch = watch
        refuse_unwritable(self.out)
        model = task.model(0)
        self._num_parameters = sum(param.numel() for param in model.parameters())
        layout = Layout.of(dict(model.named_parameters()))
        self._bounds = BoundWatch(comparison, layout, self.out)
        for method in comparison.methods:
            for options in dict.fromkeys(setting.options for setting in comparison.settings(method)):
                check_method(parse_method(with_options(method, options)), layout)
                if comparison.clients is not None:
                    check_fits(parse_method(with_options(method, options)), layout, comparison.clients)
        for optimizer in comparison.optimizers:
            make_optimizer(optimizer, model, comparison.rates(optimizer)[0])
        make_shards(task.labels, comparison.num_shares, comparison.sharding, Key(0))
        check_plausible(comparison, task)
        self._lock = FolderLock(self.out)
        self._agree(self._second(self._lock.holder()) if executor.is_main else "")
        self._before = read_description(self.out)
        self._links: list[Any] = self._before.get("links", [])
        if different := differences(self._before, comparison):
            raise ConfigError(
                f"{self.out} holds another comparison ({'; '.join(different)}); "
                "choose another --out or delete the folder"
            )

    def run(self) -> dict[str, Setting]:
        """Do what is not done yet; returns what was chosen for each method.

        Raises:
            ConfigError: another comparison is writing to the folder, or it cannot be written; on every process.
        """
        self._take_folder()
        try:
            return self._run()
        finally:
            self._lock.release()

    def _run(self) -> dict[str, Setting]:
        self._prepare()
        notes = []
        search = SettingSearch(self.comparison, self.task.metric, self._records, self.executor.decide)
        if search.is_needless:
            notes.append(f"The learning rate {self.comparison.lrs[0]:g} was given for all methods and not tuned.")
            self._collect("tuning.jsonl", [])
        while runs := search.runs_to_make():
            self._execute("tuning", runs)
            self._collect("tuning.jsonl", runs)
        chosen = search.chosen()
        codec_s = self._codec_s(chosen)
        finals = [
            Run(method, chosen[method], seed, "final", self.comparison.steps, codec_s.get(method, (0.0, 0.0)))
            for method in self.comparison.methods
            for seed in self.comparison.seeds
        ]
        # Before anything is described with new settings: an interrupted call must not leave seconds of old ones there.
        self._links = links_of(self._links, [name for name in chosen if self._is_as_before(name, chosen)])
        self._describe(chosen, notes, codec_s)
        try:
            self._execute("training", finals)
        finally:
            # Also when interrupted: what is finished can be reported.
            self._collect("results.jsonl", finals)
        is_simulated = self.executor.is_main and self.comparison.engine == "simulate"
        # Where clients take turns no round repeats another.
        is_swept = is_simulated and self.comparison.clients is None
        one_each = [run for run in finals if run.seed == self.comparison.seeds[0]] if is_swept else []
        self._links = self._swept(one_each) if is_swept else []
        if told := sweep_note(one_each):
            notes.append(told)
        self._describe(chosen, [*notes, *self._bounds.found.values()], codec_s)
        return chosen

    def _swept(self, runs: Sequence[Run]) -> list[Any]:
        """Other links, of those runs whose own records do not say that they diverge in the steps that are replayed."""
        ends = {run.name: self._records(run)[-1] for run in runs}
        sound = [run for run in runs if ends[run.name]["value"] is not None or ends[run.name]["step"] > MAX_STEPS]
        return sweep_links(self.comparison, self.task, sound, self._links)

    def _is_as_before(self, method: str, chosen: Mapping[str, Setting]) -> bool:
        """Whether an earlier call described the method with the same setting."""
        return bool(self._before.get("chosen", {}).get(method) == asdict(chosen[method]))

    def _codec_s(self, chosen: Mapping[str, Setting]) -> dict[str, CodecSeconds]:
        """What exchanges are charged: as an earlier call measured it, so that all seeds are charged alike."""
        factor = read_codec(self.comparison.codec)
        if self.comparison.engine != "simulate" or not factor:
            return {}
        known: dict[str, CodecSeconds] = {}
        unknown: dict[str, tuple[Method, str]] = {}
        for method, setting in chosen.items():
            if self._is_as_before(method, chosen) and method in self._before["codec_s"]:
                lead, other = self._before["codec_s"][method]
                known[method] = lead, other
            else:
                unknown[method] = parse_method(with_options(method, setting.options)), setting.optimizer
        measured = measure_codecs(self.task, unknown, self.comparison.workers)
        return known | {method: (factor * lead, factor * other) for method, (lead, other) in measured.items()}

    def _take_folder(self) -> None:
        """Keep every other comparison out of the folder, which a second one of the same command would damage."""
        problem = ""
        if self.executor.is_main:
            try:
                problem = self._second(self._lock.acquire())
            except ConfigError as error:
                problem = str(error)
        self._agree(problem)

    def _second(self, holder: str) -> str:
        if not holder:
            return ""
        return (
            f"--out {self.out} is being written to by {holder}; wait for it, or give another --out. (Under torchrun "
            "the processes are one comparison with --engine processes, and several without it)"
        )

    def _agree(self, problem: str) -> None:
        """Raise on every process what the main one has met."""
        (is_well,) = self.executor.decide([float(not problem)])
        if problem:
            raise ConfigError(problem)
        if not is_well:
            raise WorkerError(f"worker 0 may not write to --out {self.out}, and says why")

    def _prepare(self) -> None:
        """Make the files of an earlier call agree with this one's methods, so that they can be reported at any time."""
        methods = self.comparison.methods
        if self.executor.is_main:
            for name, text in self._files.items():
                write_atomically(self.out / name, text.encode())
            for path in (self.out / "tuning.jsonl", self.out / "results.jsonl"):
                # Before the description: it may lack methods that the files have no records of, not the other way.
                if path.exists():
                    kept = [record for record in read_records(path) if record["method"] in methods]
                    write_records(path, kept)
        chosen = self._before.get("chosen", {})
        self._describe(
            {method: Setting(**chosen[method]) for method in methods if method in chosen}, self._before.get("notes", [])
        )

    def _collect(self, name: str, runs: Sequence[Run]) -> None:
        """Write the records of those runs that are finished into one file."""
        if self.executor.is_main:
            write_records(self.out / name, [record for run in runs for record in self._records(run)])

    def _execute(self, what: str, runs: Sequence[Run]) -> None:
        def watch() -> None:
            self._watch(what, runs, self.out)
            if self.executor.is_main and runs[0].purpose == "final":
                self._bounds.look(runs)

        self._watch(what, runs, self.out)
        self.executor.execute(self.comparison, self.task, runs, self.out, watch)
        watch()

    def _records(self, run: Run) -> list[Record]:
        records = records_of(self.out, run)
        return records if is_finished(records, run) else []

    def _describe(
        self,
        chosen: Mapping[str, Setting],
        notes: Sequence[str] = (),
        codec_s: Mapping[str, CodecSeconds] | None = None,
    ) -> None:
        if not self.executor.is_main:
            return
        metric = self.task.metric
        description = {
            "command": self._command,
            "made_by": made_by(),
            **self.comparison.to_json(),
            "metric": {
                "name": metric.name,
                "higher_is_better": metric.higher_is_better,
                "logarithmic": metric.logarithmic,
            },
            "num_parameters": self._num_parameters,
            "products": {method: to_json(parse_method(method)) for method in self.comparison.methods},
            "chosen": {method: asdict(setting) for method, setting in chosen.items()},
            "links": self._links,
            "codec_s": dict(self._before.get("codec_s", {}) if codec_s is None else codec_s),
            "dense": [method for method in self.comparison.methods if is_dense(parse_method(method))],
            "notes": list(notes),
        }
        write_atomically(self.out / "comparison.json", (json.dumps(description, indent=1) + "\n").encode())


def progress_of(runs: Sequence[Run], out: StrPath) -> tuple[int, int]:
    """Steps done, and steps in all."""
    known = [(run, records_of(out, run)) for run in runs]
    done = sum(run.steps if is_finished(records, run) else records[-1]["step"] for run, records in known if records)
    return done, sum(run.steps for run in runs)
