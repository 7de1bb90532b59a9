"""Values of 16 bits."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thinwire.compressors.base import Traits, check_vector, outline_of_zeros
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.random.philox import random_words
from thinwire.layout import Segments
from thinwire.payloads import Dense, Payload
from thinwire.random import Key

_DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}


@register
@dataclass(frozen=True, slots=True)
class Half:
    """``C(x)_i`` is ``x_i`` rounded to bf16 (8 bits of precision, the range of f32) or f16 (11 bits, up to 65504).

    Nearest, ties to even; ``rounding="stochastic"`` takes one of the two neighbours, unbiased, for bf16 only. What is
    larger than the largest number becomes that number, not infinity.

    Constant: with ``h = 2^-7`` for bf16, nearest has error ``(h / (2 + h))^2 = 1.5e-5`` and stochastic
        ``omega = h^2 / (4 (1 + h)) = 1.5e-5``, both attained; in numbers below 2^-126 an error of 2^-134 is added. f16
        (``h = 2^-10``) keeps only numbers from 2^-14 to 65504 so well; for every x its error is at most 1.
    Bits: ``16 d``.
    Paper: the formats of IEEE 754 and of Wang and Kanwar, "BFloat16: the secret to high performance on Cloud
        TPUs", 2019.
    Use it when: half the bytes are enough, with next to no error; f16 only for numbers of known range.

    Args:
        format: ``"bf16"`` or ``"f16"``.
        rounding: ``"nearest"`` or ``"stochastic"``.

    Raises:
        ConfigError: an unknown format or rounding; stochastic rounding to f16.

    Example:
        >>> Half().compress(torch.tensor([1.001, -3.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [1.0, -3.0]
    """

    format: Literal["bf16", "f16"] = "bf16"
    rounding: Literal["nearest", "stochastic"] = "nearest"

    def __post_init__(self) -> None:
        check_types(self)
        if self.format == "f16" and self.rounding == "stochastic":
            raise ConfigError("stochastic rounding to f16 was asked for; it is there for bf16 only")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Dense:
        """The rounded values."""
        check_vector(x, segments)
        dtype = _DTYPES[self.format]
        if self.rounding == "stochastic":
            x = _truncated_at_random(x, key)
        largest = torch.finfo(dtype).max
        return Dense(x.to(dtype).clamp_(-largest, largest))

    def outline(self, segments: Segments) -> Payload:
        """Every payload for the same segments has the same shape."""
        return outline_of_zeros(self, segments)

    def traits(self, numel: int) -> Traits:
        """The constants above."""
        if self.format == "f16":
            return Traits(unbiased=False, error=1.0)
        step = 2.0**-7
        if self.rounding == "stochastic":
            return Traits(unbiased=True, error=step**2 / (4.0 * (1.0 + step)))
        return Traits(unbiased=False, error=(step / (2.0 + step)) ** 2)


def _truncated_at_random(x: Tensor, key: Key) -> Tensor:
    """A bf16 neighbour of each entry, as f32: random bits are added to the 16 that bf16 lacks, and those cut off."""
    words = random_words(key.bits64(), 0, (x.numel() + 1) // 2, x.device)
    drawn = torch.stack([words & 0xFFFF, (words >> 16) & 0xFFFF], 1).view(-1)[: x.numel()].to(torch.int32)
    return ((x.view(torch.int32) + drawn) & -0x10000).view(torch.float32)
