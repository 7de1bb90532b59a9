"""A small integer an entry and one scale a segment."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from thinwire.arrays import array_of, empty, over, tensor_of
from thinwire.kernels.bitpack.bits import unpack
from thinwire.kernels.quantize.levels_add import add_levels, write_levels
from thinwire.layout import Segments


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Entry ``i`` of segment ``s`` is ``level_i * (scales[s] / num_levels)`` with ``|level_i| <= num_levels``.

    ``codes`` holds ``level_i + num_levels`` in :attr:`width` bits each, packed without gaps, the lowest bit
    first (uint8 ``[ceil(d * width / 8)]``, unused bits zero); ``scales`` is f32 ``[segments.count]``. ``coding``
    says how the wire writes the codes: as they lie here, in Elias omega, or in about their entropy.

    Example:
        >>> import torch
        >>> from thinwire.kernels.bitpack.bits import pack
        >>> codes = pack(torch.tensor([0, 1, 2]), 2)
        >>> Levels(codes, torch.tensor([3.0]), 1, Segments.whole(3)).to_dense().tolist()
        [-3.0, 0.0, 3.0]
    """

    codes: Tensor
    scales: Tensor
    num_levels: int
    segments: Segments
    coding: Literal["packed", "elias", "entropy"] = "packed"

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
        out = empty(self.numel, self.codes.device)
        write_levels(self.codes, self.width, self.num_levels, self.units(), self.segments.offsets(), out)
        return out

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        add_levels(self.codes, self.width, self.num_levels, self.units(), self.segments.offsets(), out, scale)

    def units(self) -> Tensor:
        """What a level of 1 stands for in each segment: f32 ``[segments.count]``."""
        if not self.scales.is_cpu:
            return over(self.scales, self.num_levels)
        # Not torch's division: a thread of its own that helped goes on waiting for more, on the processor that the
        # kernel's next thread needs.
        return tensor_of(array_of(self.scales) / np.float32(self.num_levels))
