"""A signed power of two an entry and one scale a segment."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import CPU, empty
from thinwire.kernels.bitpack.bits import unpack
from thinwire.kernels.quantize.codebook import add_codes, write_codes
from thinwire.kernels.quantize.powers import MOST_LEVELS
from thinwire.layout import Segments
from thinwire.payloads.base import add_dense, per_entry


@dataclass(frozen=True, slots=True, eq=False)
class PowersOfTwo:
    """Entry ``i`` of segment ``s`` is ``0``, or ``+-scales[s] * 2**(1 - l)`` with ``l`` from 1 to ``num_levels``.

    Code 0 stands for 0, codes 1 to ``L`` for the positive values with ``l`` = code, codes ``L + 1`` to ``2 L`` for the
    negative ones with ``l`` = code - ``L``. They are packed in :attr:`width` bits each, the lowest bit first (uint8
    ``[ceil(d * width / 8)]``, unused bits zero); ``scales`` is f32 ``[segments.count]``. Where scale times power is
    no f32, it is rounded once.

    Example:
        >>> from thinwire.kernels.bitpack.bits import pack
        >>> codes = pack(torch.tensor([0, 1, 2, 4]), 3)
        >>> PowersOfTwo(codes, 2, torch.tensor([8.0]), Segments.whole(4)).to_dense().tolist()
        [0.0, 8.0, 4.0, -4.0]
    """

    codes: Tensor
    num_levels: int
    scales: Tensor
    segments: Segments

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.segments.numel

    @property
    def width(self) -> int:
        """Bits of one packed code: ``ceil(log2(2 * num_levels + 1))``."""
        return (2 * self.num_levels).bit_length()

    def to_dense(self) -> Tensor:
        """Zero, or sign times scale times power, for every entry."""
        if self._has_table():
            out = empty(self.numel, self.codes.device)
            write_codes(self.codes, self.width, _multiples(self.num_levels), self.scales, self.segments.offsets(), out)
            return out
        codes = unpack(self.codes, self.numel, self.width)
        levels = torch.where(codes > self.num_levels, codes - self.num_levels, codes)
        # In f64 every power from 2**0 to 2**-1000 times an f32 is exact, so that only one rounding is left.
        powers = torch.ldexp(per_entry(self.scales, self.segments).double(), (1 - levels).clamp_(min=-1000))
        values = torch.where(codes > self.num_levels, -powers, powers)
        return torch.where(codes == 0, 0.0, values).to(torch.float32)

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        if self._has_table():
            offsets = self.segments.offsets()
            add_codes(self.codes, self.width, _multiples(self.num_levels), self.scales, offsets, out, scale)
        else:
            add_dense(self.to_dense(), out, scale)

    def _has_table(self) -> bool:
        """Whether all powers are f32 and no scale makes 0 times it anything but 0: one rounding is left, as above."""
        return (
            self.codes.is_cpu
            and self.num_levels <= MOST_LEVELS
            and bool(((self.scales >= 0) & (self.scales < torch.inf)).all())
        )


@functools.lru_cache(maxsize=MOST_LEVELS)
def _multiples(num_levels: int) -> Tensor:
    """The multiple of the scale for every code; do not write to it."""
    powers = [2.0**-place for place in range(num_levels)]
    return torch.tensor([0.0, *powers, *(-power for power in powers)], dtype=torch.float32, device=CPU)
