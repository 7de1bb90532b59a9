"""A small integer an entry and one scale a segment."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.kernels.bits import unpack
from thinwire.kernels.levels import add_levels
from thinwire.layout import Segments


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Entry ``i`` of segment ``s`` is ``level_i * (scales[s] / num_levels)`` with ``|level_i| <= num_levels``.

    ``codes`` holds ``level_i + num_levels`` in :attr:`width` bits each, packed without gaps, the lowest bit
    first (uint8 ``[ceil(d * width / 8)]``, unused bits zero); ``scales`` is f32 ``[segments.count]``.

    Example:
        >>> from thinwire.kernels.bits import pack
        >>> codes = pack(torch.tensor([0, 1, 2]), 2)
        >>> Levels(codes, torch.tensor([3.0]), 1, Segments.whole(3)).to_dense().tolist()
        [-3.0, 0.0, 3.0]
    """

    codes: Tensor
    scales: Tensor
    num_levels: int
    segments: Segments

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.segments.numel

    @property
    def width(self) -> int:
        """Bits of one packed code: ``ceil(log2(2 * num_levels + 1))``."""
        return (2 * self.num_levels).bit_length()

    def levels(self) -> Tensor:
        """The signed levels: int32 ``[d]``."""
        return unpack(self.codes, self.numel, self.width) - self.num_levels

    def to_dense(self) -> Tensor:
        """Level times unit for every entry; the unit ``scale / num_levels`` is rounded to f32 first."""
        # x + -0.0 is x for every x, -0.0 included.
        out = torch.full((self.numel,), -0.0, device=self.codes.device)
        self.add_to(out)
        return out

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        units = self.scales / self.num_levels
        add_levels(self.codes, self.width, self.num_levels, units, self.segments.offsets(), out, scale)
