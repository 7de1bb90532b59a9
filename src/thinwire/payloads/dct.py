"""A vector in the coordinates of the discrete cosine transform."""

from dataclasses import dataclass

from torch import Tensor

from thinwire.kernels.transform.dct import cosine_transform
from thinwire.payloads.base import Payload, add_dense


@dataclass(frozen=True, slots=True, eq=False)
class DCT:
    """The vector whose chunks of ``side * side`` entries have the orthonormal 2-D DCT ``inner``, row by row.

    Every whole chunk ``Y`` of the inner vector, as a matrix, stands for ``B.T @ Y @ B`` with ``B`` of
    :func:`thinwire.kernels.transform.dct.cosine_basis`;
    what is left at the end stands for itself.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
        >>> DCT(Dense(torch.tensor([2.0, 0.0, 0.0, 0.0, 7.0])), 2).to_dense().round(decimals=6).tolist()
        [1.0, 1.0, 1.0, 1.0, 7.0]
    """

    inner: Payload
    side: int

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.inner.numel

    def to_dense(self) -> Tensor:
        """The inner vector, transformed back."""
        return cosine_transform(self.inner.to_dense(), self.side, inverse=True)

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        add_dense(self.to_dense(), out, scale)
