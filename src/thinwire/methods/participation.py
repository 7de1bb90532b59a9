"""Which of many clients take part in a round."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.random.philox import random_words
from thinwire.kernels.sample.subset import random_subset
from thinwire.random import Key


@runtime_checkable
class Participation(Protocol):
    """Decides who takes part; a pure function of round and key, so that everybody knows without being told."""

    def check(self, num_clients: int) -> None:
        """Raise :class:`ConfigError` if so many clients cannot be sampled in this way."""
        ...

    def mean_size(self, num_clients: int) -> float:
        """How many take part on average. What each of them sends counts as its share of so many."""
        ...

    def draw(self, number: int, num_clients: int, key: Key) -> list[int]:
        """The clients of round ``number``, ascending; perhaps none.

        Args:
            number: of the round, counted from 0.
            num_clients: of whom are drawn, 0 to ``num_clients - 1``.
            key: the same in all rounds.
        """
        ...


@register
@dataclass(frozen=True, slots=True)
class Uniform:
    """``per_round`` clients without replacement; every set of them is equally likely in every round.

    Args:
        per_round: how many.

    Raises:
        ConfigError: ``per_round`` below 1.

    Example:
        >>> [Uniform(3).draw(number, 10, Key(0)) for number in range(3)]
        [[2, 4, 9], [4, 7, 9], [3, 6, 7]]
    """

    per_round: int

    def __post_init__(self) -> None:
        check_types(self)
        _check_per_round(self.per_round)

    def check(self, num_clients: int) -> None:
        """At most all of them."""
        _check_enough(self.per_round, num_clients)

    def mean_size(self, num_clients: int) -> float:
        """Always ``per_round``."""
        return float(self.per_round)

    def draw(self, number: int, num_clients: int, key: Key) -> list[int]:
        """A subset for each round, whatever the others are."""
        return list(random_subset(key.fold("round", number).bits64(), num_clients, self.per_round).tolist())


@register
@dataclass(frozen=True, slots=True)
class Independent:
    """Each client with the same probability p, whoever else does (Suresh et al. 2017, section 5).

    The paper's estimate of the mean over n clients is the sum of what came over ``n p``, not over how many came: so it
    is unbiased, and what a client owes counts alike in every round.

    Args:
        probability: p, above 0, at most 1.

    Raises:
        ConfigError: ``probability`` out of range.

    Example:
        >>> [Independent(0.25).draw(number, 10, Key(0)) for number in range(3)]
        [[1, 3], [0, 5], [0, 3, 4, 9]]
    """

    probability: float

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 < self.probability <= 1.0:
            raise ConfigError(
                f"clients that take part with probability {self.probability} were asked for; it is above 0, at most 1"
            )

    def check(self, num_clients: int) -> None:
        """One or more on average: else most rounds would have nobody."""
        if self.probability * num_clients < 1.0:
            raise ConfigError(
                f"{num_clients:,} clients that take part with probability {self.probability:g} are "
                f"{self.probability * num_clients:g} a round; there must be 1 or more on average"
            )

    def mean_size(self, num_clients: int) -> float:
        """``n p``."""
        return num_clients * self.probability

    def draw(self, number: int, num_clients: int, key: Key) -> list[int]:
        """A word of the round's own stream for each client."""
        words = random_words(key.fold("round", number).bits64(), 0, num_clients)
        return [client for client, word in enumerate(words.tolist()) if word < self.probability * 2.0**32]


@register
@dataclass(frozen=True, slots=True)
class Cyclic:
    """``per_round`` clients after another, as they are numbered, and round again: nobody is missed, nothing is drawn.

    Args:
        per_round: how many.

    Raises:
        ConfigError: ``per_round`` below 1.

    Example:
        >>> [Cyclic(2).draw(number, 5, Key(0)) for number in range(4)]
        [[0, 1], [2, 3], [0, 4], [1, 2]]
    """

    per_round: int

    def __post_init__(self) -> None:
        check_types(self)
        _check_per_round(self.per_round)

    def check(self, num_clients: int) -> None:
        """At most all of them."""
        _check_enough(self.per_round, num_clients)

    def mean_size(self, num_clients: int) -> float:
        """Always ``per_round``."""
        return float(self.per_round)

    def draw(self, number: int, num_clients: int, key: Key) -> list[int]:
        """Those whose turn it is."""
        first = number * self.per_round
        return sorted((first + place) % num_clients for place in range(self.per_round))


def _check_per_round(per_round: int) -> None:
    if per_round < 1:
        raise ConfigError(f"{per_round} clients a round were asked for; there is at least 1")


def _check_enough(per_round: int, num_clients: int) -> None:
    if per_round > num_clients:
        raise ConfigError(
            f"{per_round:,} of {num_clients:,} clients a round were asked for; give at most as many as there are"
        )
