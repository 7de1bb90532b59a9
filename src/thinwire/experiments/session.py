"""One training run: from a description to records, interruptible and resumable."""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from thinwire.errors import NumericsError
from thinwire.experiments.checkpoints import Checkpoints
from thinwire.experiments.engines import Engine
from thinwire.experiments.optimizers import make_optimizer
from thinwire.experiments.sharding import Batches, make_shards
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task
from thinwire.experiments.tasks.base import Evaluation
from thinwire.methods import parse_method
from thinwire.random import Key
from thinwire.steps import Steps, compute
from thinwire.worker import Worker

Record = dict[str, Any]
SAVE_AFTER_S = 10.0
"""A checkpoint is written at the first evaluation that is this long after the one before."""


class Session:
    """One run of a comparison, for the workers that live in this process.

    Records go to ``folder/records.jsonl``, one JSON object an evaluation, the first at step 0; checkpoints to
    ``folder/checkpoints``. A session that is started again goes on from the last checkpoint, and its records
    are those of an uninterrupted run (measured seconds apart).
    """

    def __init__(self, comparison: Comparison, run: Run, task: Task, engine: Engine, folder: Path) -> None:
        self.comparison = comparison
        self.run = run
        self.task = task
        self.engine = engine
        self.is_main = engine.local_ranks[0] == 0
        self._records = folder / "records.jsonl"
        self._checkpoints = Checkpoints(folder / "checkpoints", engine)
        self._key = Key(run.seed)
        shards = make_shards(task.labels, engine.size, comparison.sharding, self._key.fold("shards"))
        self._batches = [
            Batches(shards[rank], comparison.batch_size, self._key.fold("batches", rank)) for rank in engine.local_ranks
        ]
        self.workers = [self._worker(rank) for rank in engine.local_ranks]
        # A copy that is only evaluated, so that a worker's local parameters are left alone.
        self._evaluated = task.model(run.seed) if self.is_main else None

    def records(self) -> Iterator[Record]:
        """Train to the end and yield each evaluation's record, on every process, as it is made.

        A run whose numbers overflow ends early with a record whose value is null: it has diverged. The record's
        step counts the steps that were made, which its bytes are of.
        """
        self._records.parent.mkdir(parents=True, exist_ok=True)
        step = self._resume()
        last_save = time.monotonic()
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
                made = max(step + 1, self.workers[0].num_steps)
                yield self._write(self._record(made, Evaluation(math.nan, math.nan)))
                break
            step = stop
            record = self._evaluate(step)
            diverged = record["value"] is None
            yield record
            if not diverged and step < self.run.steps and self._main_says(time.monotonic() - last_save > SAVE_AFTER_S):
                self.save(step)
                last_save = time.monotonic()
        self._checkpoints.remove()

    def save(self, step: int) -> None:
        """Write a checkpoint of the local workers; every process must call it at the same step."""
        self._checkpoints.save(step, [self._state(worker) for worker in self.workers])

    def train(self, start: int, stop: int) -> None:
        """Train from step ``start`` up to ``stop``, without evaluation or records."""
        programs = [
            self._program(worker, batches, rank, start, stop)
            for worker, batches, rank in zip(self.workers, self._batches, self.engine.local_ranks, strict=True)
        ]
        with private_torch_randomness(), one_torch_thread():
            self.engine.run(programs)

    def _program(self, worker: Worker, batches: Batches, rank: int, start: int, stop: int) -> Steps[None]:
        for step in range(start, stop):
            # Dropout and the like draw from torch's generator: addressed by step and rank, they are the same in
            # every engine and after every restart.
            torch.default_generator.manual_seed(self._key.fold("model", step, rank).bits64() >> 1)
            worker.optimizer.zero_grad()
            self.task.loss(worker.model, batches.indices(step)).backward()  # type: ignore[no-untyped-call]
            yield from compute(self.comparison.compute_s)
            yield from worker.step()

    def _worker(self, rank: int) -> Worker:
        model = self.task.model(self.run.seed)
        optimizer = make_optimizer(self.comparison.optimizer, model.parameters(), self.run.lr)
        method = parse_method(self.run.method)
        return Worker(method, model, optimizer, rank=rank, size=self.engine.size, seed=self.run.seed)

    def _evaluate(self, step: int) -> Record:
        evaluation = Evaluation(math.nan, math.nan)
        if self._evaluated is not None:
            lead = self.workers[0]
            self._evaluated.load_state_dict({**lead.model.state_dict(), **lead.shared_parameters()})
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
            evaluation.loss,
            evaluation.value,
        ]
        everyone = self.engine.share(own)
        message_bytes, sent, received = (sum(part) / self.engine.size for part in list(zip(*everyone, strict=True))[:3])
        loss, value = everyone[0][3:]  # worker 0 evaluates
        seen = step * self.comparison.batch_size * self.engine.size
        return {
            "method": self.run.method,
            "task": self.task.name,
            "engine": self.comparison.engine,
            "workers": self.engine.size,
            "seed": self.run.seed,
            "lr": self.run.lr,
            "step": step,
            "epoch": round(seen / self.task.num_train, 6),
            "seconds": self.engine.seconds(),
            "message_bytes": message_bytes,
            "bytes_sent": sent,
            "bytes_received": received,
            "loss": loss if math.isfinite(loss) else None,
            "metric": self.task.metric.name,
            "value": value if math.isfinite(value) else None,
        }

    def _write(self, record: Record) -> Record:
        if self.is_main:
            with self._records.open("a") as file:
                file.write(json.dumps(record) + "\n")
        return record

    def _resume(self) -> int:
        step = self._checkpoints.latest() or 0
        if step:
            for worker, saved in zip(self.workers, self._checkpoints.load(step), strict=True):
                worker.model.load_state_dict(saved["model"])
                worker.optimizer.load_state_dict(saved["optimizer"])
                worker.load_state_dict(saved["worker"])
        if self.is_main:
            kept = [line for line in read_records(self._records) if step and line["step"] <= step]
            partial = self._records.with_suffix(".partial")
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
            os.replace(partial, self._records)
        return step

    def _state(self, worker: Worker) -> dict[str, Any]:
        return {
            "model": worker.model.state_dict(),
            "optimizer": worker.optimizer.state_dict(),
            "worker": worker.state_dict(),
        }

    def _main_says(self, answer: bool) -> bool:
        return bool(self.engine.share([float(answer)])[0][0])


def read_records(path: Path) -> list[Record]:
    """The complete lines of a records file; none if it is not there. A line cut off by a crash is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def is_finished(records: list[Record], run: Run) -> bool:
    """Whether the run reached its last step, or diverged before it."""
    return bool(records) and (records[-1]["step"] >= run.steps or records[-1]["value"] is None)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Sums depend on how many threads share them; with one thread every engine gives the same bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def private_torch_randomness() -> Iterator[None]:
    """Leave torch's global generator as it was found."""
    before = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(before)
