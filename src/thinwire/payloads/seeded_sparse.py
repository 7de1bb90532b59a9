"""A few entries that a key draws: the indices do not travel."""

from dataclasses import dataclass

from torch import Tensor

from thinwire.kernels.sample.subset import segment_subsets
from thinwire.layout import Segments
from thinwire.payloads.base import Payload
from thinwire.payloads.sparse import Sparse
from thinwire.payloads.transfer import device_of


@dataclass(frozen=True, slots=True, eq=False)
class SeededSparse:
    """The vector of ``values`` at the positions that ``key`` draws in each segment, else 0.

    ``kept`` cuts the values: segment ``s`` of the vector keeps as many entries as segment ``s`` of ``kept`` has. The
    positions are those of :func:`thinwire.kernels.sample.subset.segment_subsets`.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
        >>> drawn = SeededSparse(Dense(torch.tensor([2.0])), Segments.whole(1), 7, Segments.whole(4))
        >>> sorted(drawn.to_dense().tolist())
        [0.0, 0.0, 0.0, 2.0]
    """

    values: Payload
    kept: Segments
    key: int
    segments: Segments

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.segments.numel

    def sparse(self) -> Sparse:
        """The same vector with its indices written out."""
        counts = self.kept.offsets().diff()
        places = segment_subsets(self.key, self.segments.offsets(), counts, device_of(self.values))
        return Sparse(self.numel, places, self.values)

    def to_dense(self) -> Tensor:
        """Zeros with the kept entries filled in."""
        return self.sparse().to_dense()

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out[indices] += scale * values`` in O(k)."""
        self.sparse().add_to(out, scale)
