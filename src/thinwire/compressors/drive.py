"""A random rotation, signs, and one scale."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from thinwire.compressors.base import Traits, check_vector, outline_of_zeros
from thinwire.compressors.rotation import Scale, is_unbiased, rotate_and_quantize, worst_error
from thinwire.config import check_types, register
from thinwire.layout import Segments
from thinwire.payloads import Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class DRIVE:
    """``C(x) = R^-1 (S sign(R x))`` with ``S = ||x||^2 / ||R x||_1``, or ``||R x||_1 / n``: EDEN of one bit.

    ``R`` and its blocks of n entries are those of :class:`thinwire.compressors.eden.EDEN`. The first scale makes
    ``<C(x), x> = ||x||^2``; the second, ``scale="contraction"``, has the least error.

    Constant: on a vector that the rotation makes Gaussian ``omega = pi/2 - 1 = .571``, and the contraction has error
        ``1 - 2/pi = .363``. For every vector ``omega <= n - 1``, and the contraction has ``gamma >= 1/2``: by
        Khintchine's inequality ``E||R x||_1 >= sqrt(n/2) ||x||``, which two equal entries among zeros
        attain with one round.
    Bits: ``n + 32`` a block.
    Paper: Vargaftik, Ben Basat, Portnoy, Mendelson, Ben-Itzhak and Mitzenmacher, "DRIVE: One-bit distributed mean
        estimation", NeurIPS 2021.
    Use it when: one bit an entry is to be spent on vectors whose entries differ much in size; for Gaussian ones plain
        signs are as good and cheaper to make.

    With one round the first scale is biased on vectors of few large entries: see EDEN.

    Args:
        scale: ``"unbiased"`` or ``"contraction"``.
        rounds: 1 as in the paper, or 2.

    Raises:
        ConfigError: rounds out of range, an unknown scale.

    Example:
        >>> import torch
        >>> DRIVE().compress(torch.tensor([-3.0]), Key(0), Segments.whole(1)).to_dense().tolist()
        [-3.0]
    """

    scale: Scale = "unbiased"
    rounds: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        check_types(self)

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """Signs of the rotated entries and a scale for each block."""
        check_vector(x, segments)
        return rotate_and_quantize(x, key, segments, 1, self.rounds, self.scale)

    def outline(self, segments: Segments) -> Payload:
        """Every payload for the same segments has the same shape."""
        return outline_of_zeros(self, segments)

    def traits(self, numel: int) -> Traits:
        """What is proven for every vector; see the constants above for what to expect."""
        return Traits(unbiased=is_unbiased(numel, self.rounds, self.scale), error=worst_error(numel, 1, self.scale))
