"""The step that is to be made on several processes, before any of them exchanges something."""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.experiments.optimizers import make_optimizer
from thinwire.experiments.tasks import Task
from thinwire.layout import Layout, views_like
from thinwire.worker.parameters import named_parameters

_LR = 1e-6
"""What is timed is to leave the model about as it was."""
_LEAST_MATRIX = 4096


@dataclass(frozen=True, slots=True, eq=False)
class TrainingStep:
    """A model, and how its loss comes about.

    Args:
        model: in f32 on the CPU; it is copied, and stays as it is.
        loss: of the model that it is given, which may be in DDP, on a batch of its own choice.
        optimizer: see :func:`thinwire.experiments.optimizers.make_optimizer`.
        compute_s: seconds of the step where it is known from elsewhere, and not to be measured.

    Raises:
        ConfigError: a model without parameters that are trained.
    """

    model: nn.Module
    loss: Callable[[nn.Module], Tensor]
    optimizer: str = "sgd"
    compute_s: float | None = None

    def __post_init__(self) -> None:
        if not any(param.requires_grad for param in self.model.parameters()):
            raise ConfigError("the model has no parameters that are trained; nothing would be exchanged")

    @property
    def layout(self) -> Layout:
        """Names and shapes of what is trained."""
        return Layout.of({name: param for name, param in named_parameters(self.model).items() if param.requires_grad})

    def fresh(self) -> tuple[nn.Module, Callable[[nn.Module], torch.optim.Optimizer]]:
        """A copy of the model, and what makes an optimizer of one."""
        return copy.deepcopy(self.model), lambda model: make_optimizer(self.optimizer, model, _LR)

    def gradients(self, count: int) -> list[Tensor]:
        """Gradients of so many batches, f32 ``[d]`` each."""
        model, _ = self.fresh()
        found = []
        for _ in range(count):
            model.zero_grad()
            self.loss(model).backward()
            named = named_parameters(model)
            parts = [
                torch.zeros_like(named[name]) if named[name].grad is None else named[name].grad
                for name in self.layout.names
            ]
            found.append(self.layout.flatten([part for part in parts if part is not None]).float())
        return found

    @staticmethod
    def of_task(task: Task, optimizer: str = "sgd", batch_size: int | None = None) -> "TrainingStep":
        """The step of a task, on one batch after another."""
        size = min(batch_size or task.batch_size, task.num_train)
        turns = itertools.count()

        def loss(model: nn.Module) -> Tensor:
            begin = next(turns) * size
            return task.loss(model, torch.arange(begin, begin + size, dtype=torch.int64, device=CPU) % task.num_train)

        return TrainingStep(task.model(0), loss, optimizer)

    @staticmethod
    def of_sizes(sizes: Sequence[int], compute_s: float, vector: Tensor, optimizer: str = "sgd") -> "TrainingStep":
        """A step of given seconds, of tensors of given sizes whose gradients are cut from a vector.

        Long tensors are taken for matrices, as square as their sizes allow; short ones for vectors.
        """
        ends = list(itertools.accumulate(sizes))
        model = _Plain([_shape(size) for size in sizes], vector[: ends[-1]])
        return TrainingStep(model, lambda wrapped: wrapped(), optimizer, compute_s)


class _Plain(nn.Module):
    """Parameters whose gradients are a given vector."""

    def __init__(self, shapes: Sequence[torch.Size], vector: Tensor) -> None:
        super().__init__()
        self.params = nn.ParameterList(
            nn.Parameter(torch.zeros(shape, dtype=torch.float32, device=CPU)) for shape in shapes
        )
        self.gradients = views_like(vector, list(self.params))

    def forward(self) -> Tensor:
        """A sum whose derivatives are the vector."""
        pairs = zip(self.params, self.gradients, strict=True)
        return torch.stack([(param * gradient).sum() for param, gradient in pairs]).sum()


def _shape(numel: int) -> torch.Size:
    if numel < _LEAST_MATRIX:
        return torch.Size([numel])
    rows = next(rows for rows in range(math.isqrt(numel), 0, -1) if numel % rows == 0)
    return torch.Size([rows, numel // rows])
