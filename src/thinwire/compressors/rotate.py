"""A random rotation before another operator."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thinwire.compressors.base import Compressor, Traits, check_vector
from thinwire.compressors.k_level import KLevel
from thinwire.compressors.shortening import shortened
from thinwire.config import check_types, register
from thinwire.kernels.transform.hadamard import hadamard_blocks, hadamard_rotate
from thinwire.layout import Segments
from thinwire.payloads import Concat, Payload, Rotated
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate:
    """``C(x) = R^-1 V(R x)``, ``R`` a randomised Hadamard transform that spreads every entry over all.

    The receiver draws ``R`` from the 64-bit key in the message. Each segment is rotated on its own, in blocks of powers
    of two that add no entry (``hadamard_blocks``: as large as possible, the rest in smaller ones, where the papers
    pad with zeros up to twice the length), and V compresses each block on its own, with a scale of its own. Where all
    blocks follow one another in the vector (one segment; segments of a power of two; a ``block`` that divides the
    segments' length) a message is one payload, else one for each segment: for thousands of uneven segments that is
    slow.

    Constant: that of V for the longest block, for any x. Rotation makes it smaller on average:
        ``Rotate(values=KLevel(levels=k))`` is pi_srk with ``omega <= (2 ln d + 2) / (k-1)^2``. Unbiased where V is.
        One round maps some vectors, such as ``(1, 1/2, 1/4, ...)``, to entries far from Gaussian: take two for an
        operator that counts on Gaussian ones.
    Bits: those of V, and 64 for the key of each rotation.
    Paper: Suresh, Yu, Kumar and McMahan 2017 (pi_srk); Ailon and Chazelle 2009.
    Use it when: tails are heavy and V has one scale for all; it costs about ``log2(block)`` additions an entry.

    Args:
        values: V, what becomes of the rotated entries.
        rounds: 1 or 2 rotations, one after the other.
        block: the largest block, a power of two; None for the largest possible.

    Raises:
        ConfigError: rounds or block as not described.

    Example:
        >>> import torch
        >>> spike = torch.tensor([0.0, 0.0, 4.0, 0.0])
        >>> rotated = Rotate(values=KLevel(levels=2))
        >>> rotated.compress(spike, Key(0), Segments.whole(4)).to_dense().tolist()
        [0.0, 0.0, 4.0, 0.0]
    """

    values: Compressor
    rounds: Literal[1, 2] = 1
    block: int | None = None

    def __post_init__(self) -> None:
        check_types(self)
        hadamard_blocks(0, self.block)

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """The compressed rotated entries and the key of the rotation; several of these for uneven segments."""
        check_vector(x, segments)
        return shortened(lambda x: self._compress(x, key, segments), x)

    def _compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        if segments.sizes is None and self._follows(segments):
            return self._rotated(x, key, segments.length)
        sizes = segments.offsets().diff().tolist()
        parts = [
            self._rotated(part, key.fold("segment", number), part.numel())
            for number, part in enumerate(torch.split(x, sizes))
            if part.numel()
        ]
        return Concat(tuple(parts)) if parts else self._rotated(x, key, 1)

    def outline(self, segments: Segments) -> Payload:
        """The outline of the rotated entries."""
        if segments.sizes is None and self._follows(segments):
            return self._rotated_outline(segments.numel, segments.length)
        sizes = [size for size in segments.offsets().diff().tolist() if size]
        return (
            Concat(tuple(self._rotated_outline(size, size) for size in sizes)) if sizes else self._rotated_outline(0, 1)
        )

    def _rotated_outline(self, numel: int, length: int) -> Rotated:
        block = self.block or 1 << (length.bit_length() - 1)
        return Rotated(self.values.outline(_block_segments(numel, block)), 0, self.rounds, block)

    def _follows(self, segments: Segments) -> bool:
        """Whether blocks of one size from the beginning on never cross the end of a segment."""
        length = segments.length
        return segments.count <= 1 or (length % self.block == 0 if self.block else length & (length - 1) == 0)

    def _rotated(self, x: Tensor, key: Key, length: int) -> Rotated:
        """The payload of a vector whose segments have ``length`` entries each."""
        block = self.block or 1 << (length.bit_length() - 1)
        rotation = key.fold("rotation").bits64()
        rotated = hadamard_rotate(x, rotation, self.rounds, block=block)
        inner = self.values.compress(rotated, key.fold("values"), _block_segments(x.numel(), block))
        return Rotated(inner, rotation, self.rounds, block)

    def traits(self, numel: int) -> Traits:
        """Those of the values for the longest block, or better where it is known what a rotation does for them."""
        sizes = _block_segments(numel, self.block).distinct_sizes() or (1,)
        each = [self.values.traits(size) for size in sizes]
        errors = [part.error for part in each]
        if isinstance(self.values, KLevel):
            errors = [self.values.rotated_error(size) for size in sizes]
        return Traits(unbiased=all(part.unbiased for part in each), error=max(errors))


def _block_segments(numel: int, block: int | None) -> Segments:
    """The blocks of a rotation as segments."""
    if block is not None and numel % block == 0:
        return Segments.uniform(numel, block)
    return Segments.of_sizes(hadamard_blocks(numel, block).diff().tolist())
