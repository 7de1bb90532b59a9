"""One training run: from a description to records, interruptible and resumable."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from thinwire.errors import ConfigError, NumericsError
from thinwire.experiments.bounds import Limits, RunBounds
from thinwire.experiments.checkpoints import RunCheckpoints
from thinwire.experiments.clients.crew import ClientCrew
from thinwire.experiments.clients.engine import ClientEngine
from thinwire.experiments.clients.round_log import trim_rounds
from thinwire.experiments.engines import Engine
from thinwire.experiments.health import Health, HealthSampler, Squares
from thinwire.experiments.learning_rates import Averager, make_average
from thinwire.experiments.records import RECORDS, Record, read_run, write_records
from thinwire.experiments.sharding import make_batches
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.stepping import Seat, Stepper
from thinwire.experiments.tasks import Task
from thinwire.experiments.tasks.base import Evaluation
from thinwire.experiments.training import make_crew, one_torch_thread, private_torch_randomness
from thinwire.files import StrPath, append_text
from thinwire.layout import Layout
from thinwire.methods import num_exchanges, parse_method
from thinwire.random import Key
from thinwire.worker import Server, Worker, needs_server

SAVE_AFTER_S = 10.0
"""A checkpoint is written at the first evaluation that is this long after the one before; longer if that took more than
a second, so that it costs about a tenth of the time at most."""


class Session:
    """One run of a comparison, for the workers that live in this process.

    Records go to ``folder/records.jsonl``, one JSON object an evaluation, the first at step 0; checkpoints to
    ``folder/checkpoints``. A session that is started again goes on from the last checkpoint, and its records
    are those of an uninterrupted run (measured seconds apart).
    """

    def __init__(self, comparison: Comparison, run: Run, task: Task, engine: Engine, folder: StrPath) -> None:
        self.comparison = comparison
        self.run = run
        self.task = task
        self.engine = engine
        self.is_main = 0 in engine.local_ranks
        self._folder = Path(folder)
        self._records = self._folder / RECORDS
        self._method = parse_method(run.variant)
        self.batches = make_batches(
            task.labels, comparison.num_shares, comparison.sharding, comparison.batch_size, Key(run.seed)
        )
        """Of each worker, or of each client."""
        self.crew: ClientCrew | None = None
        """Of clients that take turns, if the workers are not always the same."""
        if comparison.clients:
            assert isinstance(engine, ClientEngine)
            self.crew = ClientCrew(comparison, run, task, engine, self.batches)
        self.workers = self._make_workers() if self.crew is None else self.crew.workers
        if self.workers:
            self.workers[0].runner.counts_union = self.workers[0].rank == 0
        self.server = Server(self._method, task.model(run.seed), size=engine.size) if engine.serves else None
        # Of clients one file has all: how many places there are may change.
        ranks = [0] if self.crew else [*engine.local_ranks, *([engine.size] if engine.serves else [])]
        self._checkpoints = RunCheckpoints(self._folder / "checkpoints", engine, ranks)
        self._averager = self._make_averager()
        self.health = HealthSampler(list(self.workers), comparison.num_shares)
        self._stepper = Stepper(comparison, run, task, self._method, self.health, self._averager)
        self._bounds = RunBounds.of(comparison, run, self._layout())
        # A copy that is only evaluated, so that a worker's local parameters are left alone.
        evaluates = engine.serves if needs_server(self._method) else self.is_main
        self._evaluated = task.model(run.seed) if evaluates else None

    def records(self) -> Iterator[Record]:
        """Train to the end and yield each evaluation's record, on every process, as it is made.

        A run whose numbers overflow ends early with a record whose value is null: it has diverged. The record's
        step counts the steps that were made, which its bytes are of.
        """
        step = self._resume()
        last_save, took_s = time.monotonic(), 0.0
        diverged = False
        if step == 0:
            record = self._evaluate(0)
            diverged = record["value"] is None
            yield record
        while step < self.run.steps and not diverged:
            stop = min(step + self.comparison.evaluate_every, self.run.steps)
            try:
                self.train(step, stop)
            except NumericsError:
                # No two records have one step, also if not one was made since the last.
                made = max([step + 1, *(worker.num_steps for worker in self.workers[:1])])
                yield self._write(self._record(made, Evaluation(math.nan, math.nan)))
                break
            step = stop
            record = self._evaluate(step)
            diverged = record["value"] is None
            yield record
            is_due = time.monotonic() - last_save > SAVE_AFTER_S * max(1.0, took_s)
            if not diverged and step < self.run.steps and self._main_says(is_due):
                begun = time.monotonic()
                self.save(step)
                last_save = time.monotonic()
                took_s = last_save - begun
        self._checkpoints.remove()

    def save(self, step: int) -> None:
        """Write a checkpoint of the local workers; every process must call it at the same step."""
        states = [self._state(worker) for worker in self.workers]
        if self.crew:
            states = [{"clients": self.crew.state_dict(), "workers": states}]
        self._checkpoints.save(step, [*states, self.server.state_dict()] if self.server else states)

    def train(self, start: int, stop: int) -> None:
        """Train from step ``start`` up to ``stop``, without evaluation or records.

        With an asynchronous method these are mean steps of a worker: the server waits for as many messages as
        workers of one speed would send, and then for each worker's next one. What is evaluated is its model.
        """
        self.health.begin()
        with private_torch_randomness(), one_torch_thread():
            if self.crew:
                self.crew.train(stop, self._stepper.program)
                return
            seats = [Seat(worker, self.batches[worker.rank], worker.rank) for worker in self.workers]
            programs = [self._stepper.program(seat, stop, stop) for seat in seats]
            if self.server:
                programs.append(self.server.serve(self._num_messages(stop)))
            self.engine.run(programs)

    def _num_messages(self, stop: int) -> int:
        return sum(num_exchanges(self._method, rank, stop) for rank in range(self.engine.size))

    def _make_workers(self) -> list[Worker]:
        engine, setting = self.engine, self.run.setting
        return make_crew(
            self.task, self._method, setting.optimizer, setting.lr, engine.local_ranks, engine.size, self.run.seed
        )

    def _make_averager(self) -> Averager | None:
        average = make_average(self.comparison.average)
        if average is not None and needs_server(self._method):
            raise ConfigError(
                f"an average over the steps of all workers was asked for, but under {self.run.method} each has a clock "
                "of its own; leave out the average"
            )
        return Averager(average, self.workers[0].shared_parameters()) if average and self.is_main else None

    def _layout(self) -> Layout:
        """Of what is exchanged, also where only the server lives."""
        if self.workers:
            return self.workers[0].layout
        return Layout.of(dict(self.task.model(self.run.seed).named_parameters()))

    def _evaluate(self, step: int) -> Record:
        evaluation = Evaluation(math.nan, math.nan)
        if self._evaluated is not None:
            lead = self.server or self.workers[0]
            shared = self._averager.parameters() if self._averager else lead.shared_parameters()
            # Buffers are not exchanged: they are worker 0's where it lives here, else those of the initial model.
            model = self.workers[0].model if self.workers else self._evaluated
            self._evaluated.load_state_dict({**model.state_dict(), **shared})
            with one_torch_thread():
                evaluation = self.task.evaluate(
                    self._evaluated, "test" if self.run.purpose == "final" else "validation"
                )
        return self._write(self._record(step, evaluation))

    def _record(self, step: int, evaluation: Evaluation) -> Record:
        links = self.engine.traffic()
        own = [
            float(sum(worker.message_bytes for worker in self.workers)),
            float(sum(link.bytes_sent for link in links)),
            float(sum(link.bytes_received for link in links)),
            sum(self._stepper.computing_s.values()),
            evaluation.loss,
            evaluation.value,
            math.nan if evaluation.top5 is None else evaluation.top5,
            self._union_density(),
            *astuple(self.health.squares()),
        ]
        everyone = self.engine.share(own)
        sums = [sum(part) / self.engine.size for part in list(zip(*everyone, strict=True))[:4]]
        message_bytes, sent, received, computing_s = sums
        loss, value, top5 = everyone[-1 if needs_server(self._method) else 0][4:7]  # worker 0 evaluates, or the server
        union_density = everyone[0][7]
        health = Health.of([Squares(*each[8:]) for each in everyone], self.engine.size)
        # Theorems have everybody take part in every exchange.
        is_whole = self.comparison.num_shares == self.comparison.workers
        norms = health.first_gradient_norm, health.largest_gradient_norm
        limits = self._bounds.at(step, *norms) if is_whole else Limits()
        seen = step * self.comparison.batch_size * self.engine.size
        return {
            "method": self.run.method,
            "task": self.task.name,
            "engine": self.comparison.engine,
            "workers": self.engine.size,
            **({"clients": self.comparison.clients.count} if self.comparison.clients else {}),
            "seed": self.run.seed,
            **asdict(self.run.setting),
            "step": step,
            "epoch": round(seen / self.task.num_train, 6),
            "seconds": self.engine.seconds(),
            "computing_s": computing_s,
            "message_bytes": message_bytes,
            "bytes_sent": sent,
            "bytes_received": received,
            "union_density": _finite(union_density),
            **{name: _finite(each) for name, each in asdict(health).items()},
            **{f"{name}_bound": _finite(each) for name, each in asdict(limits).items()},
            "loss": _finite(loss),
            "metric": self.task.metric.name,
            "value": _finite(value),
            "top5": _finite(top5),
        }

    def _union_density(self) -> float:
        """That of the last mean of the first worker here; NaN if there was none."""
        density = self.workers[0].runner.union_density if self.workers else None
        return math.nan if density is None else density

    def _write(self, record: Record) -> Record:
        if self.crew:
            self.crew.log.write(self._folder)
        if self.is_main:
            append_text(self._records, json.dumps(record) + "\n")
        return record

    def _resume(self) -> int:
        kept = read_run(self._records)
        reached = {line["step"] for line in kept}
        # Only process 0 has the records: a checkpoint that they do not reach is of no use.
        step, states = self._checkpoints.load(lambda found: found in reached or not self.is_main)
        if step:
            if self.server:
                self.server.load_state_dict(states.pop())
            if self.crew:
                self.crew.load_state_dict(states[0]["clients"])
                states = states[0]["workers"]
            for worker, saved in zip(self.workers, states, strict=True):
                worker.model.load_state_dict(saved["model"])
                worker.optimizer.load_state_dict(saved["optimizer"])
                worker.load_state_dict(saved["worker"])
                if worker.rank in self.health.seen:
                    self.health.seen[worker.rank] = saved["gradients_seen"]
                self._stepper.computing_s[worker.rank] = saved["computing_s"]
                if worker.rank == 0 and self._averager is not None:
                    self._averager.load_state_dict(saved["average"])
        if self.crew:
            trim_rounds(self._folder, step)
        if self.is_main:
            write_records(self._records, [line for line in kept if step and line["step"] <= step])
        return step

    def _state(self, worker: Worker) -> dict[str, Any]:
        return {
            "model": worker.model.state_dict(),
            "optimizer": worker.optimizer.state_dict(),
            "worker": worker.state_dict(),
            "gradients_seen": self.health.seen.get(worker.rank, []),
            "computing_s": self._stepper.computing_s.get(worker.rank, 0.0),
            **({"average": self._averager.state_dict()} if worker.rank == 0 and self._averager else {}),
        }

    def _main_says(self, answer: bool) -> bool:
        return bool(self.engine.share([float(answer)])[0][0])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
