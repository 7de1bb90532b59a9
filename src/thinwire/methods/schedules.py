"""When workers communicate."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from thinwire.config import register
from thinwire.errors import ConfigError


@runtime_checkable
class Schedule(Protocol):
    """Decides after which local steps a worker takes part in an exchange."""

    def due(self, num_steps: int, rank: int) -> bool:
        """Whether worker ``rank`` communicates after its ``num_steps``-th step (counted from 1)."""
        ...


@register
@dataclass(frozen=True, slots=True)
class Every:
    """All workers, after every ``steps``-th local step: the H of local SGD.

    Raises:
        ConfigError: ``steps`` below 1.
    """

    steps: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"every = {self.steps} was given; workers communicate every 1, 2, 3, ... steps")

    def due(self, num_steps: int, rank: int) -> bool:
        """True at multiples of ``steps``."""
        return num_steps % self.steps == 0
