"""A few entries of the vector; the others are zero."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.payloads.base import Payload


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """Entries at ``indices`` (int64 ``[k]``, strictly ascending) with the vector of ``values`` (``[k]``), else 0.

    The values are themselves a payload, so *sparsify, then quantize* is nesting, nothing more.

    Example:
        >>> from thinwire.payloads.dense import Dense
        >>> Sparse(5, torch.tensor([1, 3]), Dense(torch.tensor([2.0, -1.0]))).to_dense().tolist()
        [0.0, 2.0, 0.0, -1.0, 0.0]
    """

    numel: int
    indices: Tensor
    values: Payload

    def to_dense(self) -> Tensor:
        """Zeros with the kept entries filled in."""
        return torch.zeros(self.numel).index_copy_(0, self.indices, self.values.to_dense())

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out[indices] += scale * values`` in O(k)."""
        values = self.values.to_dense()
        out.index_add_(0, self.indices, values if scale == 1.0 else values * scale)
