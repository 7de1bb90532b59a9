"""How far workers and memories are from where theorems want them, sampled at every evaluation."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.methods import GradientAveraging
from thinwire.worker import Worker


@dataclass(frozen=True, slots=True)
class Squares:
    """Sums of squared norms over the workers that live here, which processes add up.

    Args:
        memory: of the residuals.
        gradient: of the gradients that parameters hold; after a step under gradient averaging, the common mean.
        drift: of the differences between each worker's parameters and the shared ones.
        mean_memory: of the mean residual, times the learning rate where residuals are in units of a gradient; NaN if
            not all workers live here.
    """

    memory: float
    gradient: float
    drift: float
    mean_memory: float

    @staticmethod
    @torch.no_grad()
    def of(workers: Sequence[Worker], size: int) -> "Squares":
        """Those of these workers, of ``size`` in all."""
        memory = sum(worker.memory_norm() ** 2 for worker in workers)
        # Many simulated workers may share a model; added up one by one, the sum has the bits that processes find.
        optimizers = {id(worker.model): worker.optimizer for worker in workers}
        squares = {
            model: _square(param.grad for group in optimizer.param_groups for param in group["params"])
            for model, optimizer in optimizers.items()
        }
        gradient = sum(squares[id(worker.model)] for worker in workers)
        drift = 0.0
        for worker in workers:
            if not isinstance(worker.method, GradientAveraging):
                shared = worker.shared_parameters()
                drift += _square(mine - shared[name] for name, mine in worker.parameters().items())
        return Squares(memory, gradient, drift, _mean_memory(workers) if len(workers) == size else math.nan)


def _square(tensors: Iterable[Tensor | None]) -> float:
    norms = (torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors if tensor is not None)
    return sum(float(norm) ** 2 for norm in norms)


def _mean_memory(workers: Sequence[Worker]) -> float:
    total: dict[str, Tensor] = {}
    for worker in workers:
        for name, tensor in worker.state_dict()["tensors"].items():
            if name.startswith(_RESIDUAL):
                total[name] = total[name] + tensor if name in total else tensor.clone()
    lr = workers[0].optimizer.param_groups[0]["lr"] if isinstance(workers[0].method, GradientAveraging) else 1.0
    return _square(total.values()) * (float(lr) / len(workers)) ** 2


_RESIDUAL = "memory.residual."


@dataclass(frozen=True, slots=True)
class Health:
    """Root mean squares over the workers; what there is none of is NaN.

    Args:
        memory_norm: of the residuals' norms.
        gradient_norm: of the last gradients' norms.
        local_drift: of the distances of local models from the shared one.
        virtual_distance: of the workers' mean from the virtual sequence ``x - eta mean(m)`` of the proofs: as if all
            that memories hold had been sent (Stich, Cordonnier, Jaggi 2018, eq. 10; Basu et al. 2019, eq. 8).
    """

    memory_norm: float
    gradient_norm: float
    local_drift: float
    virtual_distance: float

    @staticmethod
    def of(parts: Sequence[Squares], size: int) -> "Health":
        """That of ``size`` workers, from what each process has of them.

        Example:
            >>> Health.of([Squares(8.0, 2.0, 0.0, 1.0)], 2)
            Health(memory_norm=2.0, gradient_norm=1.0, local_drift=0.0, virtual_distance=1.0)
        """

        def mean(values: Sequence[float]) -> float:
            return math.sqrt(sum(values) / size)

        return Health(
            memory_norm=mean([part.memory for part in parts]),
            gradient_norm=mean([part.gradient for part in parts]),
            local_drift=mean([part.drift for part in parts]),
            virtual_distance=math.sqrt(parts[0].mean_memory),
        )
