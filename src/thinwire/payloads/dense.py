"""The vector itself."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """Every value as it is: f32 ``[d]`` (or bf16/f16, which widen exactly when decoded).

    Example:
        >>> Dense(torch.tensor([1.0, -2.0])).to_dense().tolist()
        [1.0, -2.0]
    """

    values: Tensor

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.values.numel()

    def to_dense(self) -> Tensor:
        """A copy of the values in f32."""
        return self.values.to(torch.float32, copy=True)

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * values``, entry by entry."""
        values = self.values.to(torch.float32)
        if abs(scale) == 1.0:
            out.add_(values, alpha=scale)
        else:
            # With a factor torch may round once where others round twice.
            out.add_(values * scale)
