"""Trains a task and keeps gradients on the way, and what the method compressed."""

from collections.abc import Callable

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import ThinwireError, WorkerError
from thinwire.experiments.first_message import FirstMessage
from thinwire.experiments.plausible import check_batch_size
from thinwire.experiments.recording import Recording, RecordingPlan, Rows
from thinwire.experiments.run_folders import made_by
from thinwire.experiments.sharding import make_batches
from thinwire.experiments.tasks import Task, describe_failure
from thinwire.experiments.training import make_worker, one_torch_thread, private_torch_randomness, take_gradient
from thinwire.methods import parse_method
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.worker import Worker
from thinwire.worker.channel import Outcome


class Recorder:
    """Trains the task in a simulation and keeps vectors on the way.

    The run is the one that a comparison makes with the same settings, bit for bit.

    Args:
        plan: what to train and keep.
        task: the task.

    Raises:
        ConfigError: a method or an optimizer that does not fit the task's model.
    """

    def __init__(self, plan: RecordingPlan, task: Task) -> None:
        self.plan = plan
        self._task = task
        self._key = Key(plan.seed)
        self._batches = make_batches(task.labels, plan.workers, "random", plan.batch_size, self._key)
        check_batch_size(task, plan.workers, plan.batch_size)
        self._taps: list[FirstMessage[Tensor]] = []
        self._workers = [self._worker(rank) for rank in range(plan.workers)]
        self.layout = self._workers[0].layout
        self._simulation = Simulation(plan.workers)
        self._ranks = range(plan.workers if plan.all_workers else 1)
        count = plan.steps // plan.every * len(self._ranks)
        self._gradients = _Shelf(count, self.layout.numel)
        self._compressed = _Shelf(count if self._taps else 0, self.layout.numel)
        self._complete = False

    @property
    def num_bytes(self) -> int:
        """What the finished recording takes, in memory and on disk."""
        return 4 * (self._gradients.vectors.numel() + self._compressed.vectors.numel())

    def run(self, watch: Callable[[int], None]) -> None:
        """Train to the end; ``watch`` gets the number of steps made. May be interrupted, see :meth:`recording`.

        Raises:
            NumericsError: the numbers overflowed.
            WorkerError: the task raised.
        """
        with private_torch_randomness(), one_torch_thread():
            for step in range(1, self.plan.steps + 1):
                self._step(step)
                watch(step)
        self._complete = True

    def recording(self) -> Recording:
        """What is recorded so far."""
        return Recording(
            task=self._task.name, plan=self.plan, layout=self.layout, complete=self._complete, made_by=made_by(),
            gradient=self._gradients.rows(), compressed=self._compressed.rows(),
        )  # fmt: skip

    def _step(self, step: int) -> None:
        kept = step % self.plan.every == 0
        for rank, worker in enumerate(self._workers):
            try:
                # As in a comparison, which counts steps from 0.
                take_gradient(self._task, worker, self._batches[rank], self._key, step - 1)
            except ThinwireError:
                raise
            except Exception as error:
                raise WorkerError(
                    f"the task {self._task.name} raised {describe_failure(error)} at step {step}"
                ) from error
            if kept and rank in self._ranks:
                self._gradient(worker.model, self._gradients.free_row())
                self._gradients.label(step, rank)
        for rank in self._ranks if self._taps else ():
            if kept:
                self._taps[rank].open()
        self._simulation.run([worker.step() for worker in self._workers])
        for rank in self._ranks if self._taps else ():
            heard = self._taps[rank].taken()
            if heard is not None:
                self._compressed.free_row().copy_(heard)
                self._compressed.label(step, rank)

    def _gradient(self, model: torch.nn.Module, out: Tensor) -> None:
        params = [model.get_parameter(name) for name in self.layout.names]
        self.layout.flatten([torch.zeros_like(p) if p.grad is None else p.grad for p in params], out)

    def _worker(self, rank: int) -> Worker:
        plan, method = self.plan, parse_method(self.plan.method)
        worker = make_worker(self._task, method, plan.optimizer, plan.lr, rank, plan.workers, plan.seed)
        if method.memory.init(torch.zeros(1, dtype=torch.float32, device=CPU)):
            worker.runner.watcher = tap = FirstMessage(method, _given)
            self._taps.append(tap)
        return worker


def _given(outcome: Outcome, intended: Tensor) -> Tensor | None:
    """What the compressor was given; None of what is sent as it is."""
    return None if outcome.is_exact else intended


class _Shelf:
    """Rows that are filled one after the other; memory is used as they are."""

    def __init__(self, count: int, numel: int) -> None:
        self.vectors = torch.empty(count, numel, dtype=torch.float32, device=CPU)
        self._labels: list[tuple[int, int]] = []

    def free_row(self) -> Tensor:
        """Where the next vector goes; it counts once it is labelled."""
        return self.vectors[len(self._labels)]

    def label(self, step: int, rank: int) -> None:
        self._labels.append((step, rank))

    def rows(self) -> Rows:
        count = len(self._labels)
        # A slice would be saved with all the memory behind it.
        vectors = self.vectors if count == len(self.vectors) else self.vectors[:count].clone()
        return Rows(
            vectors=vectors, steps=tuple(s for s, _ in self._labels), ranks=tuple(rank for _, rank in self._labels)
        )
