"""What memories have in common whose messages are changes."""

import math
from typing import Protocol, runtime_checkable

from thinwire.compressors.base import Traits
from thinwire.errors import ConfigError
from thinwire.memory.base import Memory


@runtime_checkable
class EstimatingMemory(Memory, Protocol):
    """A memory whose messages are changes: those who receive them hold an estimate, to which they are added.

    An exchange that adds changes up (:class:`thinwire.exchanges.ChangeAdder`) and such a memory need each other.
    """

    @property
    def change_rate(self) -> float | None:
        """The share of a change that stays in the estimate; None as long as it is not tuned."""
        ...

    @property
    def can_restart(self) -> bool:
        """Whether the estimate may be replaced by the vectors' mean: messages do not depend on what was received."""
        ...


def omega_of(traits: Traits, part: object) -> float:
    """The variance constant of an unbiased operator, which ``part`` needs.

    Raises:
        ConfigError: the operator is biased, or nothing is known of it.

    Example:
        >>> omega_of(Traits(unbiased=True, error=3.0), "Shift()")
        3.0
    """
    if not traits.unbiased or not math.isfinite(traits.error):
        raise ConfigError(
            f"{part} learns a shift from unbiased messages, and this compressor makes biased ones; take an unbiased "
            "one (qsgd, select=random), or EF21, which is for contractions"
        )
    return traits.error


def check_rate(rate: float | None, part: str) -> None:
    """Raise :class:`ConfigError` unless it is a rate of learning, above 0 and at most 1, or left to the compressor.

    Example:
        >>> check_rate(0.5, "Shift")
    """
    if rate is not None and not 0.0 < rate <= 1.0:
        raise ConfigError(f"{part} was given the rate {rate}; it is above 0 and at most 1, or left out")


def known_rate(rate: float | None, part: str) -> float:
    """The rate.

    Raises:
        ConfigError: it was neither given nor tuned.

    Example:
        >>> known_rate(0.25, "Shift")
        0.25
    """
    if rate is None:
        raise ConfigError(
            f"{part} has no rate yet; give one, or let it be tuned to the compressor: thinwire.methods.fitted"
        )
    return rate
