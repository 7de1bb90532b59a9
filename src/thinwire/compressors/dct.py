"""The discrete cosine transform before another compressor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.compressors.base import Compressor, Traits, check_vector
from thinwire.compressors.shortening import shortened
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.transform.dct import cosine_transform
from thinwire.layout import Segments
from thinwire.payloads import DCT as CosinePayload
from thinwire.payloads import Concat, Payload
from thinwire.random import Key

LARGEST_SIDE = 256


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class DCT:
    """``C(x) = T^-1 V(T x)``, T the orthonormal 2-D DCT-II of each chunk of ``side**2`` entries, seen as a square.

    What is left at the end of a segment, less than a chunk, is not transformed.

    Constant: that of ``values``, since T keeps norms; how much it gains depends on how smooth the chunks are.
    Bits: those of ``values``.
    Paper: Peng, Quesnelle and Kingma, "Decoupled momentum optimization" (DeMo), 2024. The published code cuts each
        tensor along its own rows and columns; here a chunk is a run of consecutive entries of the flat vector.
    Use it when: neighbouring entries are alike, or top-k is to mix directions instead of picking entries. DeMo is
        ``DCT(side=64, values=TopK(k=32))`` in chunks of 4096. Segments that are not
        whole chunks are transformed one by one, and ``values`` may refuse a segment that is shorter than its k.

    Args:
        values: what becomes of the coefficients, segment by segment.
        side: of the square, 1 to 256.

    Raises:
        ConfigError: side out of range.

    Example:
        >>> import torch
        >>> from thinwire.compressors import TopK
        >>> smooth = DCT(side=2, values=TopK(k=1))
        >>> smooth.compress(torch.full((4,), 3.0), Key(0), Segments.whole(4)).to_dense().round(decimals=5).tolist()
        [3.0, 3.0, 3.0, 3.0]
    """

    values: Compressor
    side: int = 64

    def __post_init__(self) -> None:
        check_types(self)
        if not 1 <= self.side <= LARGEST_SIDE:
            raise ConfigError(f"squares of side {self.side} were asked for; 1 to {LARGEST_SIDE} are possible")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """The compressed coefficients."""
        check_vector(x, segments)
        return shortened(lambda x: self._compress(x, key, segments), x)

    def _compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        if self._follows(segments):
            return CosinePayload(self.values.compress(cosine_transform(x, self.side), key, segments), self.side)
        sizes: list[int] = segments.offsets().diff().tolist()
        if not x.numel():
            return self.values.compress(x, key, segments)
        parts = torch.split(x, sizes)
        return Concat(
            tuple(
                CosinePayload(
                    self.values.compress(
                        cosine_transform(part, self.side), key.fold("segment", number), Segments.whole(part.numel())
                    ),
                    self.side,
                )
                for number, part in enumerate(parts)
                if part.numel()
            )
        )

    def outline(self, segments: Segments) -> Payload:
        """The outline of the coefficients."""
        if not segments.numel or self._follows(segments):
            return CosinePayload(self.values.outline(segments), self.side)
        sizes = [size for size in segments.offsets().diff().tolist() if size]
        return Concat(tuple(CosinePayload(self.values.outline(Segments.whole(size)), self.side) for size in sizes))

    def _follows(self, segments: Segments) -> bool:
        """Whether no chunk crosses the end of a segment."""
        return segments.count <= 1 or (segments.sizes is None and segments.length % self.side**2 == 0)

    def traits(self, numel: int) -> Traits:
        """Those of ``values``."""
        return self.values.traits(numel)
