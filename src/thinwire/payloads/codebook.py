"""A small integer an entry, one table for all, and one scale a segment."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from thinwire.arrays import empty
from thinwire.kernels.quantize.codebook import add_codes, write_codes
from thinwire.layout import Segments


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """Entry ``i`` of segment ``s`` is ``scales[s] * table[code_i]``, rounded to f32.

    ``codes`` holds ``code_i``, a position in ``table`` (f32 ``[2 to 256]``), in :attr:`width` bits each, packed without
    gaps, the lowest bit first (uint8 ``[ceil(d * width / 8)]``, unused bits zero); ``scales`` is f32
    ``[segments.count]``. ``coding`` says how the wire writes the codes: as they lie here, or in about their entropy.

    Example:
        >>> import torch
        >>> from thinwire.kernels.bitpack.bits import pack
        >>> codes = pack(torch.tensor([0, 1, 1]), 1)
        >>> table = torch.tensor([-0.5, 2.0])
        >>> Codebook(codes, table, torch.tensor([3.0]), Segments.whole(3)).to_dense().tolist()
        [-1.5, 6.0, 6.0]
    """

    codes: Tensor
    table: Tensor
    scales: Tensor
    segments: Segments
    coding: Literal["packed", "entropy"] = "packed"

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.segments.numel

    @property
    def width(self) -> int:
        """Bits of one packed code: ``ceil(log2(len(table)))``."""
        return max(1, (self.table.numel() - 1).bit_length())

    def to_dense(self) -> Tensor:
        """Scale times number of the table for every entry."""
        out = empty(self.numel, self.codes.device)
        write_codes(self.codes, self.width, self.table, self.scales, self.segments.offsets(), out)
        return out

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        add_codes(self.codes, self.width, self.table, self.scales, self.segments.offsets(), out, scale)
