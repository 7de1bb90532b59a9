"""One value for all entries of a segment."""

from dataclasses import dataclass

from torch import Tensor

from thinwire.layout import Segments
from thinwire.payloads.base import add_dense, per_entry


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """Every entry of segment ``s`` is ``values[s]``: f32 ``[segments.count]``.

    Example:
        >>> import torch
        >>> Constant(torch.tensor([1.0, 2.0]), Segments.of_sizes([2, 1])).to_dense().tolist()
        [1.0, 1.0, 2.0]
    """

    values: Tensor
    segments: Segments

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.segments.numel

    def to_dense(self) -> Tensor:
        """The value of its segment for every entry."""
        return per_entry(self.values, self.segments)

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        add_dense(self.to_dense(), out, scale)
