"""Sparse examples of a linear model, and how a step turns one into an update."""

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU, array_of
from thinwire.config import check_types
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import check_entries, check_indices, check_offsets

Loss: TypeAlias = Literal["logistic", "hinge"]
Method: TypeAlias = Literal["sgd", "mem-sgd", "gspar"]
Select: TypeAlias = Literal["top-k", "random"]

LOSSES: Final[tuple[Loss, ...]] = get_args(Loss)
_MOST = 2**31


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Examples ``x_i`` with few entries that are not zero, and their labels ``y_i``.

    Args:
        numel: entries ``d`` of an example, zeros too.
        offsets: int64 ``[n + 1]``, ascending: entries ``offsets[i]`` to ``offsets[i + 1] - 1`` are those of row ``i``.
        indices: int64 ``[nnz]``, the place of each in its row, each place once a row.
        values: f32 ``[nnz]``.
        labels: f32 ``[n]``, -1 or 1.
        penalties: f32 ``[d]``, the factor of a weight in the gradient of the regulariser; see :meth:`regularised`.

    Raises:
        ConfigError: shapes, types or indices that do not fit.

    Example:
        >>> Rows.dense(torch.eye(2), torch.tensor([1.0, -1.0])).indices.tolist()
        [0, 1]
    """

    numel: int
    offsets: Tensor
    indices: Tensor
    values: Tensor
    labels: Tensor
    penalties: Tensor

    def __post_init__(self) -> None:
        for entries in (self.values, self.labels, self.penalties):
            check_entries(entries)
        check_indices(self.indices)
        nnz = self.indices.numel()
        check_offsets(self.offsets, nnz)
        if self.values.numel() != nnz or self.labels.numel() != self.num or self.penalties.numel() != self.numel:
            raise ConfigError(
                f"{nnz} indices, {self.values.numel()} values, {self.offsets.numel()} offsets, {self.labels.numel()} "
                f"labels and {self.penalties.numel()} penalties do not fit {self.num} rows of {self.numel} entries"
            )
        if not 1 <= self.num < _MOST or not 1 <= self.numel < _MOST:
            raise ConfigError(f"{self.num} rows of {self.numel} entries were given; each is 1 to 2**31 - 1")
        if nnz and not 0 <= int(self.indices.min()) <= int(self.indices.max()) < self.numel:
            raise ConfigError(f"an index lies outside of the {self.numel} entries of a row")
        if not bool((self.labels.abs() == 1).all()):
            raise ConfigError("a label is neither -1 nor 1")

    @property
    def num(self) -> int:
        """Number of examples ``n``."""
        return self.offsets.numel() - 1

    @classmethod
    def dense(cls, x: Tensor, labels: Tensor) -> "Rows":
        """The rows of a matrix f32 ``[n, d]`` without their zeros, not regularised.

        Example:
            >>> Rows.dense(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.ones(2)).values.tolist()
            [2.0, 1.0]
        """
        given = x != 0
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64, device=CPU), given.sum(dim=1).cumsum(0)])
        indices = given.nonzero()[:, 1].contiguous()
        zeros = torch.zeros(x.shape[1], dtype=torch.float32, device=CPU)
        return cls(numel=x.shape[1], offsets=offsets, indices=indices, values=x[given], labels=labels, penalties=zeros)

    def regularised(self, regularisation: float) -> "Rows":
        """The same examples of an objective with ``regularisation / 2 * |w|^2``.

        The regulariser is dealt out to the examples that touch a coordinate, ``d_u`` of ``n``, so that a gradient is as
        sparse as its example and unbiased: ``penalty_u = regularisation * n / d_u`` (Niu et al. 2011, section 2).

        Raises:
            ConfigError: a factor below 0.

        Example:
            >>> Rows.dense(torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.ones(2)).regularised(0.5).penalties.tolist()
            [1.0, 0.5]
        """
        if not 0 <= regularisation < float("inf"):
            raise ConfigError(f"a regularisation of {regularisation} was given; it is 0 or more")
        touched = torch.bincount(self.indices, minlength=self.numel).clamp(min=1)
        penalties = (regularisation * self.num / touched.double()).float()
        return Rows(numel=self.numel, offsets=self.offsets, indices=self.indices, values=self.values,
                    labels=self.labels, penalties=penalties)  # fmt: skip

    def arrays(self) -> tuple[Any, ...]:
        """Offsets, indices, values, labels and penalties as arrays."""
        return tuple(map(array_of, (self.offsets, self.indices, self.values, self.labels, self.penalties)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a step adds to the vector.

    With ``u = learning_rate * gradient``, rounded to f32:

    - ``sgd`` adds ``-u``: every coordinate of the example (Hogwild!, Niu et al. 2011).
    - ``mem-sgd`` adds ``u`` to the thread's own memory, and moves ``k`` coordinates of it to the vector: the largest,
      or random ones (Parallel-Mem-SGD, Stich et al. 2018, Alg. 2).
    - ``gspar`` adds ``-u_j / p_j`` with probability ``p_j``, proportional to ``|u_j|`` and at most 1, ``k`` coordinates
      in expectation; two rounds of the greedy algorithm (Wangni et al. 2018, Alg. 3).

    A coordinate whose amount is zero is not written.

    Args:
        method: one of these.
        select: which coordinates ``mem-sgd`` moves.
        k: how many.
        loss: ``log(1 + exp(-y <w, x>))``, or ``max(0, 1 - y <w, x>)``.
        learning_rate: is rounded to f32.

    Raises:
        ConfigError: an unknown name, k below 1, a rate that is not above 0.

    Example:
        >>> Rule(method="mem-sgd", k=10).select
        'top-k'
    """

    method: Method = "sgd"
    select: Select = "top-k"
    k: int = 1
    loss: Loss = "logistic"
    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        if self.k < 1:
            raise ConfigError(f"{self.k} coordinates were asked for; 1 is the least")
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"a learning rate of {self.learning_rate} was given; it must be above 0")

    def number(self) -> int:
        """The number by which kernels know method and selection.

        Example:
            >>> Rule(method="gspar").number()
            3
        """
        return {"sgd": 0, "mem-sgd": 1 if self.select == "top-k" else 2, "gspar": 3}[self.method]

    def rate(self) -> "np.float32":
        """The learning rate as f32.

        Example:
            >>> float(Rule(learning_rate=0.5).rate())
            0.5
        """
        return np.float32(self.learning_rate)
