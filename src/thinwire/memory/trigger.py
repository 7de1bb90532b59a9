"""Whether a worker has enough to say."""

from dataclasses import dataclass

import torch

from thinwire.arrays import empty
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.payloads import Dense, Sparse


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A message is sent only if ``||u||^2 > c_t eta_t^2``, else an empty one (SPARQ-SGD, Singh et al. 2020).

    ``u`` is what would be compressed: the vector, and what the memory adds. What is not sent stays where what messages
    leave out stays: in the residual, or in the next difference to what is public. ``eta_t`` is the optimizer's learning
    rate, ``c_t = level t^growth`` after t steps. Each worker decides for itself; an empty message takes a few bytes.

    Args:
        level: c at the first step, in squared lengths of a gradient: with ``growth = 0`` a worker speaks once it has
            moved by ``sqrt(level)`` times the length that a gradient of norm 1 moves it in a step.
        growth: at least 0 and below 1, as the theorems ask.

    Raises:
        ConfigError: a level below 0, or a growth outside of [0, 1).

    Example:
        >>> Trigger(level=2.0, growth=0.5).threshold(step=4, lr=0.1)
        0.04000000000000001
    """

    level: float = 2.0
    growth: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        if not self.level >= 0.0 or not 0.0 <= self.growth < 1.0:
            raise ConfigError(
                f"a trigger with level {self.level} and growth {self.growth} was given; level must be at least 0, and "
                "growth at least 0 and below 1"
            )

    def threshold(self, step: int, lr: float) -> float:
        """The squared norm that must be exceeded after ``step`` steps."""
        return float(self.level * max(step, 1) ** self.growth * lr**2)


def nothing(numel: int, device: torch.device) -> Sparse:
    """An empty message.

    Example:
        >>> nothing(2, torch.device("cpu")).to_dense().tolist()
        [0.0, 0.0]
    """
    return Sparse(numel, torch.empty(0, dtype=torch.int64, device=device), Dense(empty(0, device)))
