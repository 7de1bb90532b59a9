"""A random rotation, the nearest numbers of a Gaussian codebook, and a scale that makes up for the rounding."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from thinwire.compressors.base import Traits, check_vector, outline_of_zeros
from thinwire.compressors.rotation import Scale, is_unbiased, rotate_and_quantize, worst_error
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.quantize.lloyd_max import LARGEST_BITS
from thinwire.layout import Segments
from thinwire.payloads import Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class EDEN:
    """``C(x) = R^-1 (S q)``, ``r = R x``, ``q_i`` the Lloyd-Max number nearest to ``r_i sqrt(n) / ||x||``.

    ``R`` is a randomised Hadamard transform of each block of n entries; the blocks of a segment are powers of two, the
    largest that fit first. ``S = ||x||^2 / <r, q>`` for each block makes ``<C(x), x> = ||x||^2``;
    ``scale="contraction"`` has ``S = <r, q> / <q, q>`` instead, which has the least error and shrinks. With ``bits``
    between two whole numbers a random share of the entries of each block gets the larger codebook: a key draws them, so
    their indices do not travel. Both codebooks then have one ``S``, or one each with
    ``scale="contraction"``. Below 1 bit the share ``bits`` of the entries is kept, with one bit each.

    Constant: on a vector that the rotation makes Gaussian omega is .571, .133, .0358, .0096 for 1, 2, 3, 4 bits,
        ``1/(1 - D) - 1`` with D the squared error of the codebook, between whole numbers the mean of two (.317 for 1.5
        bits), and ``1.571 / bits - 1`` below 1 bit; the contraction has error D: .363, .117, .0345, .0095, and
        ``1 - .637 bits`` below 1 bit. What holds for every vector is weaker and is what ``traits`` says:
        ``omega <= n - 1``, and error at most .5, .306, .0968, .0275 for the contraction.
    Bits: ``sum over blocks of (floor(bits) n + k + 32)``, ``k = floor((bits - floor(bits)) n)``, and 32 more a block if
        bits is above 1 and no whole number; ``k + 32`` a block below 1 bit, k at least 1. A segment that is not a power
        of two long has up to log2 d blocks.
    Paper: Vargaftik, Ben Basat, Portnoy, Mendelson, Ben-Itzhak and Mitzenmacher, "EDEN: Communication-efficient and
        robust distributed mean estimation for federated learning", ICML 2022.
    Use it when: 1 bit or more an entry can be spent, for means over many workers (unbiased), or under error feedback
        (contraction). Take the whole vector or chunks of a power of two as segments; other segments are rotated one by
        one.

    The proof of unbiasedness is for a uniformly random rotation. A Hadamard transform is biased on vectors of few large
    entries: one round on ``(1, 1/2, 1/4, ...)`` has ``|bias|^2 = .333 ||x||^2`` at 1 bit and .023 at 2 bits. Two rounds
    bring it below ``.0005 ||x||^2`` on every vector that was tried, from 64 entries on. Smaller blocks stay biased
    (``(3, 2, 1, 0, ...)`` at 1 bit: .003 of 32 entries, .01 of 8, .045 of 4), the last few entries of a long segment
    too. ``traits`` calls two rounds unbiased where no block has fewer than 64 entries, on this evidence and no proof:
    of 65,540 entries the last block has 4, and a vector may lie there. Fractional bits differ from the paper in that a
    fixed number of entries gets the larger codebook, not a binomial one.

    Args:
        bits: .05 to 8, an entry.
        rounds: 1 or 2 rotations; 2 where unbiasedness counts.
        scale: ``"unbiased"`` or ``"contraction"``.

    Raises:
        ConfigError: bits or rounds out of range, an unknown scale.

    Example:
        >>> import torch
        >>> x = torch.tensor([2.0, 0.0, 0.0, 0.0])
        >>> EDEN(1.0, rounds=1).compress(x, Key(0), Segments.whole(4)).to_dense().tolist()[0]
        2.0
    """

    bits: float
    rounds: Literal[1, 2] = 2
    scale: Scale = "unbiased"

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.05 <= self.bits <= LARGEST_BITS:
            raise ConfigError(f"{self.bits} bits an entry were asked for; EDEN takes .05 to {LARGEST_BITS}")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """Codes of the rotated entries and a scale for each block."""
        check_vector(x, segments)
        return rotate_and_quantize(x, key, segments, self.bits, self.rounds, self.scale)

    def outline(self, segments: Segments) -> Payload:
        """Every payload for the same segments has the same shape."""
        return outline_of_zeros(self, segments)

    def traits(self, numel: int) -> Traits:
        """What is proven for every vector; see the constants above for what to expect."""
        return Traits(
            unbiased=is_unbiased(numel, self.rounds, self.scale), error=worst_error(numel, self.bits, self.scale)
        )
