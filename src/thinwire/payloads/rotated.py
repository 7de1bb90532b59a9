"""A vector in rotated coordinates; the rotation travels as a key."""

from dataclasses import dataclass

from torch import Tensor

from thinwire.kernels.transform.hadamard import hadamard_rotate
from thinwire.payloads.base import Payload, add_dense


@dataclass(frozen=True, slots=True, eq=False)
class Rotated:
    """The vector whose randomised Hadamard transform is ``inner``: ``R^-1 inner``.

    ``R`` is that of :func:`thinwire.kernels.transform.hadamard.hadamard_rotate` with ``key`` (64 bits), ``rounds`` (1
    or 2) and ``block`` (a power of two, or None for the largest possible blocks).

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
        >>> rotated = hadamard_rotate(torch.tensor([3.0, 0.0, 0.0, 1.0]), 5)
        >>> (Rotated(Dense(rotated), 5).to_dense() + 0.0).tolist()
        [3.0, 0.0, 0.0, 1.0]
    """

    inner: Payload
    key: int
    rounds: int = 1
    block: int | None = None

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.inner.numel

    def to_dense(self) -> Tensor:
        """The inner vector, rotated back."""
        inner = self.inner.to_dense()
        return hadamard_rotate(inner, self.key, self.rounds, inverse=True, block=self.block, out=inner)

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        add_dense(self.to_dense(), out, scale)
