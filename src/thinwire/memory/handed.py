"""A vector on its way into one exchange."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from thinwire.arrays import empty
from thinwire.errors import ConfigError
from thinwire.kernels.flat.flatten import flatten_finite


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """``reference - tensors``, a vector that need not be made in order to be sent.

    Args:
        reference: contiguous f32 ``[d]``.
        tensors: contiguous f32 tensors, ``d`` entries in all, one after another.

    Example:
        >>> import torch
        >>> Difference(torch.ones(2), [torch.zeros(1), torch.ones(1)]).make().tolist()
        [1.0, 0.0]
    """

    reference: Tensor
    tensors: Sequence[Tensor]

    def make(self) -> Tensor:
        """It as a new vector."""
        out = empty(self.reference.numel(), self.reference.device)
        flatten_finite(self.tensors, out, self.reference)
        return out


@dataclass(slots=True, eq=False)
class Handed:
    """A vector that is handed over: who takes it owns it, and nobody else refers to it.

    So its memory is free as soon as whoever took it is done. A caller that kept the vector as an argument would hold
    it until the exchange is over, as long as the model, beside the mean that comes back.

    Args:
        vector: contiguous f32 ``[d]``; keep no other reference to it.
        difference: what the vector is, as long as nobody has asked for it.

    Example:
        >>> import torch
        >>> handed = Handed(torch.ones(2))
        >>> handed.take().tolist()
        [1.0, 1.0]
    """

    vector: Tensor | None
    difference: Difference | None = None

    def look(self) -> Tensor:
        """The vector, which stays here: read it, and keep no reference to it.

        Raises:
            ConfigError: it was taken before.
        """
        if self.difference is not None:
            self.vector = self.difference.make()
            self.difference = None
        if self.vector is None:
            raise ConfigError("this vector was taken before; an exchange makes one message of it, once")
        return self.vector

    def take(self) -> Tensor:
        """The vector, which belongs to the caller from now on.

        Raises:
            ConfigError: it was taken before.
        """
        vector = self.look()
        self.vector = None
        return vector
