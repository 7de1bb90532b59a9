"""A matrix as the product of two thin ones."""

from dataclasses import dataclass

from torch import Tensor

from thinwire.kernels.transform.low_rank import outer_products
from thinwire.payloads.base import add_dense


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """The first ``numel`` entries of ``left @ right.T``, row by row: ``left`` f32 ``[m, r]``, ``right`` f32 ``[n, r]``.

    The products are added up in order, each rounded to f32, so that every machine gets the same bits.

    Example:
        >>> import torch
        >>> LowRank(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]]), 3).to_dense().tolist()
        [3.0, 4.0, 6.0]
    """

    left: Tensor
    right: Tensor
    numel: int

    def to_dense(self) -> Tensor:
        """The product, cut to length."""
        return outer_products(self.left, self.right, self.numel)

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        add_dense(self.to_dense(), out, scale)
