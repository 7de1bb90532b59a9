"""A few entries of the vector; the others are zero."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import zeros
from thinwire.kernels.sparse.scatter import scatter_add, scatter_write
from thinwire.kernels.sparse.scatter_signs import scatter_add_signs
from thinwire.payloads.base import Payload
from thinwire.payloads.dense import Dense
from thinwire.payloads.signs import Signs


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """Entries at ``indices`` (int64 ``[k]``, strictly ascending) with the vector of ``values`` (``[k]``), else 0.

    The values are themselves a payload, so *sparsify, then quantize* is nesting, nothing more.

    Example:
        >>> Sparse(5, torch.tensor([1, 3]), Dense(torch.tensor([2.0, -1.0]))).to_dense().tolist()
        [0.0, 2.0, 0.0, -1.0, 0.0]
    """

    numel: int
    indices: Tensor
    values: Payload

    def to_dense(self) -> Tensor:
        """Zeros with the kept entries filled in.

        Raises:
            ConfigError: as :meth:`add_to`.
        """
        out = zeros(self.numel, self.indices.device)
        scatter_write(self.indices, self.kept(), out)
        return out

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out[indices] += scale * values`` in O(k).

        Raises:
            ConfigError: indices that do not ascend strictly or lie outside the vector; ``out`` is unchanged then.
        """
        match self.values:
            case Signs(bits, scales, segments):
                scatter_add_signs(self.indices, bits, scales, segments.offsets(), out, scale)
            case _:
                scatter_add(self.indices, self.kept(), out, scale)

    def kept(self) -> Tensor:
        """The values in f32: those of the payload itself, or what it stands for."""
        if not isinstance(self.values, Dense):
            return self.values.to_dense()
        values = self.values.values
        # Asking costs a twelfth of what `to` does, which counts for a few entries.
        return values if values.dtype == torch.float32 else values.to(torch.float32)
