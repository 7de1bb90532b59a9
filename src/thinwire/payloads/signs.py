"""One bit an entry and one scale a segment."""

from dataclasses import dataclass

from torch import Tensor

from thinwire.arrays import empty
from thinwire.kernels.quantize.signs_add import add_signs, write_signs
from thinwire.layout import Segments


@dataclass(frozen=True, slots=True, eq=False)
class Signs:
    """Entry ``i`` of segment ``s`` is ``-scales[s]`` where its bit is set, else ``+scales[s]``.

    ``bits`` is uint8 ``[ceil(d / 8)]``, entry ``i`` in bit ``i % 8`` of byte ``i // 8``, unused bits zero;
    ``scales`` is f32 ``[segments.count]``.

    Example:
        >>> import torch
        >>> Signs(torch.tensor([0b101], dtype=torch.uint8), torch.tensor([0.5]), Segments.whole(3)).to_dense().tolist()
        [-0.5, 0.5, -0.5]
    """

    bits: Tensor
    scales: Tensor
    segments: Segments

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.segments.numel

    def to_dense(self) -> Tensor:
        """``scale`` or ``-scale`` for every entry."""
        out = empty(self.numel, self.bits.device)
        write_signs(self.bits, self.scales, self.segments.offsets(), out)
        return out

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        add_signs(self.bits, self.scales, self.segments.offsets(), out, scale)
