"""A vector on its way into one exchange."""

from dataclasses import dataclass

from torch import Tensor

from thinwire.errors import ConfigError


@dataclass(slots=True, eq=False)
class Handed:
    """A vector that is handed over: who takes it owns it, and nobody else refers to it.

    So its memory is free as soon as whoever took it is done. A caller that kept the vector as an argument would hold
    it until the exchange is over, as long as the model, beside the mean that comes back.

    Args:
        vector: contiguous f32 ``[d]``; keep no other reference to it.

    Example:
        >>> import torch
        >>> handed = Handed(torch.ones(2))
        >>> handed.take().tolist()
        [1.0, 1.0]
    """

    vector: Tensor | None

    def look(self) -> Tensor:
        """The vector, which stays here: read it, and keep no reference to it.

        Raises:
            ConfigError: it was taken before.
        """
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
