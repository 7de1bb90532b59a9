"""How far workers and memories are from where theorems want them, sampled at every evaluation."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.experiments.first_message import FirstMessage
from thinwire.methods import GradientAveraging
from thinwire.worker import Worker
from thinwire.worker.channel import Outcome


@dataclass(frozen=True, slots=True)
class Squares:
    """Sums of squared norms over the workers that live here, which processes add up.

    Args:
        memory: of the residuals.
        gradient: of the last gradients that were looked at; 0 before the first.
        first_gradient: of the largest gradient at step 0; not a sum.
        largest_gradient: of the largest gradient, as in :attr:`Health.largest_gradient_norm`; not a sum.
        drift: of the differences between each worker's parameters and the shared ones.
        mean_memory: of the mean residual, times the learning rate where residuals are in units of a gradient; NaN if
            not all workers live here.
        relative_error: what the first message of worker 0 since the last evaluation lost; NaN if there was none.
    """

    memory: float
    gradient: float
    first_gradient: float
    largest_gradient: float
    drift: float
    mean_memory: float
    relative_error: float


class HealthSampler:
    """Looks at the workers that live here now and then, so that it costs next to nothing.

    Of gradients it looks at those of the last step before an evaluation and of steps 0, 1, 2, 4, 8 and so on, in which
    they change most; of messages, at the first one of worker 0 after an evaluation. It asks nothing of other
    processes.

    Args:
        workers: those that live here, by rank; others are not looked at.
        size: number of all.
    """

    def __init__(self, workers: Sequence[Worker], size: int) -> None:
        self._workers = workers
        self._size = size
        self.seen: dict[int, list[tuple[int, float]]] = {worker.rank: [] for worker in workers}
        """Steps and squared norms of gradients by worker, as far as they count in future: state of a run."""
        self._loss: FirstMessage[float] | None = None
        if workers and workers[0].rank == 0:
            workers[0].runner.watcher = self._loss = FirstMessage(workers[0].method, _lost)

    def begin(self) -> None:
        """The first exchange from now on is looked at; there may be none until the next evaluation."""
        if self._loss is not None:
            self._loss.open()

    def look(self, worker: Worker, step: int, stop: int) -> None:
        """At the gradient of step ``step``, counted from 0, which is in the parameters; ``stop`` ends the training."""
        if worker.rank not in self.seen or (step + 1 != stop and step & (step - 1)):
            return
        groups = worker.optimizer.param_groups
        square = _square(param.grad for group in groups for param in group["params"])
        seen = self.seen[worker.rank]
        self.seen[worker.rank] = [*seen[:1], *(each for each in seen[1:] if each[0] >= step // 2), (step, square)]

    @torch.no_grad()
    def squares(self) -> Squares:
        """What there is now."""
        memory = drift = gradient = 0.0
        lost = None if self._loss is None else self._loss.found
        for worker in self._workers:
            memory += worker.memory_norm() ** 2
            gradient += self.seen[worker.rank][-1][1] if self.seen[worker.rank] else 0.0
            if not isinstance(worker.method, GradientAveraging):
                shared = worker.shared_parameters()
                drift += _square(mine - shared[name] for name, mine in worker.parameters().items())
        return Squares(
            memory=memory, gradient=gradient, drift=drift,
            first_gradient=max((seen[0][1] for seen in self.seen.values() if seen), default=0.0),
            largest_gradient=max((square for seen in self.seen.values() for _, square in seen), default=0.0),
            mean_memory=_mean_memory(self._workers) if len(self._workers) == self._size else math.nan,
            relative_error=math.nan if lost is None else lost,
        )  # fmt: skip


def _lost(outcome: Outcome, intended: Tensor) -> float:
    """Of a message, as a share of what was to be sent; NaN of zeros."""
    length = _square([intended])
    lost = _square([intended - outcome.aggregate.sent.to_dense()])
    return lost / length if length else math.nan


def _square(tensors: Iterable[Tensor | None]) -> float:
    norms = (torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors if tensor is not None)
    return sum(float(norm) ** 2 for norm in norms)


def _mean_memory(workers: Sequence[Worker]) -> float:
    total: dict[str, Tensor] = {}
    for worker in workers:
        for name, tensor in worker.state_dict()["tensors"].items():
            if name.startswith(_RESIDUAL):
                total[name] = total[name] + tensor if name in total else tensor.float()
    lr = workers[0].optimizer.param_groups[0]["lr"] if isinstance(workers[0].method, GradientAveraging) else 1.0
    return _square(total.values()) * (float(lr) / len(workers)) ** 2


_RESIDUAL = "memory.residual."


@dataclass(frozen=True, slots=True)
class Health:
    """Root mean squares over the workers; what there is none of is NaN.

    Args:
        memory_norm: of the residuals' norms.
        gradient_norm: of the norms of the workers' own gradients, at the last step.
        first_gradient_norm: of any worker at step 0.
        largest_gradient_norm: of any worker, at step 0 or in the later half of the steps so far: an estimate of the
            theorems' G. Of what came before, a memory that is in proportion to the learning rate holds next to nothing.
        local_drift: of the distances of local models from the shared one.
        virtual_distance: of the workers' mean from the virtual sequence ``x - eta mean(m)`` of the proofs: as if all
            that memories hold had been sent (Stich, Cordonnier, Jaggi 2018, eq. 10; Basu et al. 2019, eq. 8).
        relative_error: ``||u - q||^2 / ||u||^2`` of a message q for u of worker 0: what was sent has contraction
            ``gamma`` of 1 minus it, or relative variance ``omega`` of it.
    """

    memory_norm: float
    gradient_norm: float
    first_gradient_norm: float
    largest_gradient_norm: float
    local_drift: float
    virtual_distance: float
    relative_error: float

    @staticmethod
    def of(parts: Sequence[Squares], size: int) -> "Health":
        """That of ``size`` workers, from what each process has of them.

        Example:
            >>> Health.of([Squares(8.0, 2.0, 1.0, 4.0, 0.0, 1.0, 0.5)], 2)
            Health(memory_norm=2.0, gradient_norm=1.0, first_gradient_norm=1.0, largest_gradient_norm=2.0, ...
        """

        def mean(values: Sequence[float]) -> float:
            return math.sqrt(sum(values) / size)

        return Health(
            memory_norm=mean([part.memory for part in parts]),
            gradient_norm=mean([part.gradient for part in parts]),
            first_gradient_norm=math.sqrt(max(part.first_gradient for part in parts)),
            largest_gradient_norm=math.sqrt(max(part.largest_gradient for part in parts)),
            local_drift=mean([part.drift for part in parts]),
            virtual_distance=math.sqrt(parts[0].mean_memory),
            relative_error=parts[0].relative_error,
        )
