"""What a comparison needs to know of a learning problem."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from torch import Tensor, nn

Split: TypeAlias = Literal["validation", "test"]


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured, for axes and tables.

    Args:
        name: one or two words, such as ``accuracy``.
        higher_is_better: the direction of progress.
        logarithmic: whether a log axis shows it best (a suboptimality).
        best: the best value that there can be; None if none is known.
    """

    name: str
    higher_is_better: bool
    logarithmic: bool = False
    best: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss and metric over one split.

    Args:
        loss: the mean.
        value: of the task's metric.
        top5: the share of examples whose class is among the five that the model thinks likeliest; None unless the
            metric is an accuracy over at least ten classes.
    """

    loss: float
    value: float
    top5: float | None = None


class Task(Protocol):
    """A learning problem on real (or, for ``logreg``, stated synthetic) data.

    A task is immutable after it is made; every worker of a simulation shares one. Training examples are
    addressed by index, so that shards and batches are index tensors and the task never samples.
    """

    @property
    def name(self) -> str:
        """The name in tables and records."""
        ...

    @property
    def metric(self) -> Metric:
        """What :meth:`evaluate` measures."""
        ...

    @property
    def num_train(self) -> int:
        """Number of training examples; indices run from 0 to ``num_train - 1``."""
        ...

    @property
    def labels(self) -> Tensor:
        """int64 ``[num_train]``: by what ``--sharding sorted`` sorts the examples before it cuts shards."""
        ...

    @property
    def batch_size(self) -> int:
        """Examples per worker and step, unless the user says otherwise."""
        ...

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """Ascending grid that is searched for every method, unless the user says otherwise."""
        ...

    def model(self, seed: int) -> nn.Module:
        """A fresh f32 model on the CPU whose initial parameters depend on ``seed`` alone.

        The global random state of torch is left as it was.
        """
        ...

    def loss(self, model: nn.Module, indices: Tensor) -> Tensor:
        """Mean training loss (scalar, differentiable) of the examples at ``indices`` (int64 ``[b]``)."""
        ...

    def evaluate(self, model: nn.Module, split: Split) -> Evaluation:
        """Loss and metric on held-out data; the model's mode and gradients are left as they were.

        Learning rates are chosen on ``"validation"``; what is reported is measured on ``"test"``.
        """
        ...
