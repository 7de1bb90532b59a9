"""A matrix as the product of two thin ones."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.payloads.base import add_dense


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """The first ``numel`` entries of ``left @ right.T``, row by row: ``left`` f32 ``[m, r]``, ``right`` f32 ``[n, r]``.

    The products are added up in order, each rounded to f32, so that every machine gets the same bits.

    Example:
        >>> LowRank(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]]), 3).to_dense().tolist()
        [3.0, 4.0, 6.0]
    """

    left: Tensor
    right: Tensor
    numel: int

    def to_dense(self) -> Tensor:
        """The product, cut to length."""
        total = torch.zeros(self.left.shape[0], self.right.shape[0], device=self.left.device)
        for rank in range(self.left.shape[1]):
            # Not addr or matmul: they may fuse the product with the sum, which rounds otherwise.
            total += self.left[:, rank : rank + 1] * self.right[:, rank]
        return total.view(-1)[: self.numel]

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        add_dense(self.to_dense(), out, scale)
