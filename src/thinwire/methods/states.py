"""State of the local optimizer that workers exchange beside their models."""

from dataclasses import dataclass

from thinwire.config import check_types, register
from thinwire.errors import ConfigError


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class SyncedState:
    """A tensor that the optimizer keeps for each parameter becomes the workers' mean after every ``every``-th step.

    Under local Adam all moments are averaged with the parameters, which triples the bytes; under DES-LOC (Iacob et al.
    2025) each has a period of its own, the longer the more slowly it changes. Means are exact, by an all-reduce in f32.

    Args:
        names: what the optimizer calls it; of several names a parameter has the first one that the optimizer gives it,
            and parameters that have none are left out.
        every: local steps from one exchange to the next.

    Raises:
        ConfigError: no name, or a period below 1.

    Example:
        >>> SyncedState(names=("exp_avg",), every=3).due(6)
        True
    """

    names: tuple[str, ...]
    every: int

    def __post_init__(self) -> None:
        check_types(self)
        if not self.names:
            raise ConfigError("no name of an optimizer's state was given; give one, such as names=('exp_avg',)")
        if self.every < 1:
            raise ConfigError(f"every = {self.every} was given; a state is averaged every 1, 2, 3, ... steps")

    def due(self, num_steps: int) -> bool:
        """Whether it is averaged after this step, counted from 1."""
        return num_steps % self.every == 0
