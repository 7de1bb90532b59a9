"""No compression."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import copy_of
from thinwire.compressors.base import Traits, check_vector
from thinwire.config import register
from thinwire.layout import Segments
from thinwire.payloads import Dense
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class Identity:
    """``C(x) = x``: every value as f32.

    Constant: omega = 0, gamma = 1.
    Bits: 32 d.
    Paper: none.
    Use it when: nothing may be lost; as what becomes of the values that a sparsifier keeps, which are exact then.

    Example:
        >>> import torch
        >>> Identity().compress(torch.tensor([1.0, 2.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [1.0, 2.0]
    """

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Dense:
        """A copy of ``x``: a memory may write to ``x`` while the payload is still in use."""
        check_vector(x, segments)
        return Dense(copy_of(x))

    def outline(self, segments: Segments) -> Dense:
        """As many f32 as entries."""
        return Dense(torch.empty(segments.numel, dtype=torch.float32, device="meta"))

    def traits(self, numel: int) -> Traits:
        """No error; linear."""
        return Traits(unbiased=True, error=0.0, linear=True)
