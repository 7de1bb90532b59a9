"""Each segment by itself."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.compressors.base import Compressor, Traits, check_vector
from thinwire.compressors.identity import Identity
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.payloads import Concat, Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class Apart:
    """``C(x) = (C_1(x_1), ..., C_1(x_s))``: a message for each segment, one after another; short ones as they are.

    Most operators keep segments apart by themselves, in one call; of those whose message has a part in common, such as
    the table of :class:`thinwire.compressors.bins.Bins`, each segment gets its own. It is meant for few segments, such
    as tensors.

    Constant: that of ``inner`` on one segment; 0 for short ones.
    Bits: those of ``inner`` for each segment.
    Paper: standard; the published code of MuLoCo and SparseLoCo has a table of 2-bit values for each tensor.
    Use it when: tensors differ much in size and the operator has something in common for all of them.

    Args:
        inner: compresses each segment.
        exact_below: segments of fewer entries are sent as they are: biases and norms, which a table would make longer.

    Raises:
        ConfigError: a length below 0.

    Example:
        >>> from thinwire.compressors.bins import Bins
        >>> x = torch.tensor([-3.0, -3.0, 3.0, 3.0, -9.0, -9.0, 9.0, 9.0])
        >>> Apart(Bins(2)).compress(x, Key(0), Segments.uniform(8, 4)).to_dense().tolist()
        [-3.0, -3.0, 3.0, 3.0, -9.0, -9.0, 9.0, 9.0]
    """

    inner: Compressor
    exact_below: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if self.exact_below < 0:
            raise ConfigError(f"exact_below = {self.exact_below} was given; it is a number of entries, 0 or more")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """A message, or those of all segments."""
        check_vector(x, segments)
        if segments.count <= 1:
            return self._of(x.numel()).compress(x, key, segments)
        parts = torch.split(x, segments.offsets().diff().tolist())
        return Concat(
            tuple(
                self._of(part.numel()).compress(part, key.fold("segment", number), Segments.whole(part.numel()))
                for number, part in enumerate(parts)
            )
        )

    def outline(self, segments: Segments) -> Payload:
        """The outlines of all segments."""
        if segments.count <= 1:
            return self._of(segments.numel).outline(segments)
        sizes = segments.offsets().diff().tolist()
        return Concat(tuple(self._of(size).outline(Segments.whole(size)) for size in sizes))

    def traits(self, numel: int) -> Traits:
        """Those of the operator of one segment: a concatenation of linear messages adds as they do."""
        return self._of(numel).traits(numel)

    def _of(self, numel: int) -> Compressor:
        return Identity() if numel < self.exact_below else self.inner
