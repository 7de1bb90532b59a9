"""The 44 questions."""

from thinwire.errors import ConfigError
from thinwire.evidence.demand import Demand
from thinwire.evidence.judges import averaging, combination, fairness, memory, scaling, threads, variance

_MODULES = (averaging, variance, scaling, fairness, memory, combination, threads)
DEMANDS: tuple[Demand, ...] = tuple(
    sorted((demand for module in _MODULES for demand in module.DEMANDS), key=lambda demand: demand.number)
)
"""All of them, by number."""


def demands_of(numbers: tuple[int, ...]) -> tuple[Demand, ...]:
    """Those of the numbers; all without any.

    Raises:
        ConfigError: a number that no question has.

    Example:
        >>> [demand.number for demand in demands_of((40, 2))]
        [2, 40]
        >>> len(demands_of(()))
        44
    """
    known = {demand.number for demand in DEMANDS}
    for number in numbers:
        if number not in known:
            raise ConfigError(f"there is no question {number}; they are numbered 1 to {len(DEMANDS)}")
    return tuple(demand for demand in DEMANDS if not numbers or demand.number in numbers)
