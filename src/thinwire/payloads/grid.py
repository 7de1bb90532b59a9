"""A small integer an entry, and for each segment where the grid begins and how far its points are apart."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from thinwire.arrays import empty
from thinwire.kernels.quantize.grid_add import add_points, write_points
from thinwire.layout import Segments


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Entry ``i`` of segment ``s`` is ``lows[s] + steps[s] * code_i``; product and sum are rounded to f32.

    ``codes`` holds ``code_i``, 0 to ``num_codes - 1``, in :attr:`width` bits each, packed without gaps, the lowest bit
    first (uint8 ``[ceil(d * width / 8)]``, unused bits zero); ``lows`` and ``steps`` are f32 ``[segments.count]``.
    ``coding`` says how the wire writes the codes: as they lie here, or in about their entropy.

    Example:
        >>> import torch
        >>> from thinwire.kernels.bitpack.bits import pack
        >>> codes = pack(torch.tensor([0, 1, 2]), 2)
        >>> Grid(codes, 3, torch.tensor([-1.0]), torch.tensor([0.5]), Segments.whole(3)).to_dense().tolist()
        [-1.0, -0.5, 0.0]
    """

    codes: Tensor
    num_codes: int
    lows: Tensor
    steps: Tensor
    segments: Segments
    coding: Literal["packed", "entropy"] = "packed"

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.segments.numel

    @property
    def width(self) -> int:
        """Bits of one packed code: ``ceil(log2(num_codes))``, at least 1."""
        return max(1, (self.num_codes - 1).bit_length())

    def to_dense(self) -> Tensor:
        """The point of its grid for every entry."""
        out = empty(self.numel, self.codes.device)
        write_points(self.codes, self.width, self.lows, self.steps, self.segments.offsets(), out)
        return out

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        add_points(self.codes, self.width, self.lows, self.steps, self.segments.offsets(), out, scale)
