"""What a simulated or real worker of a comparison does, step by step."""

import time
from dataclasses import dataclass

from thinwire.distributed.comm_hook import can_overlap
from thinwire.experiments.health import HealthSampler
from thinwire.experiments.learning_rates import Averager, make_rates
from thinwire.experiments.sharding import Batches
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task
from thinwire.experiments.training import take_gradient_of
from thinwire.methods import Method
from thinwire.random import Key
from thinwire.steps import Steps, compute
from thinwire.worker import Worker, can_share, needs_server

BACKWARD_SHARE = 2 / 3
"""Of a step's computation: backward takes twice as long as forward, with two products of matrices for one."""


@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """A worker and whose examples it computes with.

    Args:
        worker: what exchanges.
        batches: its examples.
        owner: whose they are: the worker's rank, or the client that takes part as this worker.
        num_missed: steps that were made without the owner; its batches are those of its own steps.
    """

    worker: Worker
    batches: Batches
    owner: int
    num_missed: int = 0


class Stepper:
    """Makes the programs of the workers of a run.

    Args:
        comparison: what the run is of.
        run: the run.
        task: what is trained.
        method: of the run.
        health: looks at gradients.
        averager: takes in the common model of every step, if there is one.
    """

    def __init__(
        self, comparison: Comparison, run: Run, task: Task, method: Method, health: HealthSampler,
        averager: Averager | None,
    ) -> None:  # fmt: skip
        self._comparison = comparison
        self._run = run
        self._task = task
        self._method = method
        self._health = health
        self._averager = averager
        self._key = Key(run.seed)
        self._rates = make_rates(comparison.lr_schedule, run.steps)
        self._overlaps = comparison.overlap == "ddp" and can_overlap(method)
        self.computing_s: dict[int, float] = {}
        """Time of forward and backward so far, by rank."""

    def program(self, seat: Seat, stop: int, evaluated_at: int) -> Steps[None]:
        """The steps of a worker up to step ``stop``; of an asynchronous one until its server pauses it.

        Args:
            seat: of the worker.
            stop: a number of steps.
            evaluated_at: the step at which the model is evaluated next, ``stop`` or later.
        """
        worker = seat.worker
        asynchronous, shared = needs_server(self._method), can_share(self._method, worker.model)
        while asynchronous or worker.num_steps < stop:
            step = worker.num_steps
            seconds = self._comparison.compute.seconds(self._key, seat.owner, step)
            if shared:  # first the time, then the work: the gradients are this worker's until the next request
                yield from self._spend(seconds)
            begun_s = time.perf_counter()
            indices = seat.batches.indices(step - seat.num_missed)
            take_gradient_of(self._task, worker, indices, self._key.fold("model", step, seat.owner))
            if self._comparison.engine == "processes":
                seconds = time.perf_counter() - begun_s
            self.computing_s[worker.rank] = self.computing_s.get(worker.rank, 0.0) + seconds
            self._health.look(worker, step, evaluated_at)
            if worker.rank == 0 and self._averager is not None:
                self._averager.take(step, worker.shared_parameters())
            for group in worker.optimizer.param_groups:
                group["lr"] = self._rates.at(self._run.setting.lr, step)
            if not shared:  # all workers' backward, then all workers' exchanges: the cache holds the code of either
                yield from self._spend(seconds)
            before = worker.num_exchanges
            yield from worker.step()
            exchanged = worker.num_exchanges > before
            codec_s = self._run.codec_s[worker.rank > 0] if exchanged else 0.0
            if codec_s or self._overlaps:  # the next request waits for what goes on in the background
                yield from compute(codec_s)
            if asynchronous and exchanged and worker.is_paused:
                return

    def _spend(self, seconds: float) -> Steps[None]:
        """The time of a step's computation, its backward in the background of the exchange if that overlaps."""
        backward = BACKWARD_SHARE if self._overlaps else 0.0
        yield from compute((1.0 - backward) * seconds)
        if backward:
            yield from compute(backward * seconds, in_background=True)
