"""How many clients there are, who of them take part in a round, and what becomes of what the others remember."""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.methods.participation import Cyclic, Independent, Participation, Uniform

LocalOptimizer: TypeAlias = Literal["keep", "fresh"]
KINDS = ("uniform", "independent", "cyclic")
"""Ways to take part, as the command line calls them."""


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Each client has its share of the data and a memory of its own; those of a round exchange as so many workers.

    Args:
        count: how many there are.
        participation: who take part in a round.
        absent: what becomes of a client's memory while it does not take part: ``keep``, it waits for its next turn;
            ``fresh``, every turn begins with zeros; ``drop:N``, it is given up if the last turn was more than N rounds
            ago.
        local_optimizer: the same for the state of the optimizer of its local steps: ``keep`` or ``fresh``. Where
            gradients are averaged there is one optimizer for all, whose state is part of what is common.

    Raises:
        ConfigError: numbers or a text that cannot be.

    Example:
        >>> Clients(count=1000, participation=Uniform(20), absent="drop:50").per_round
        20
    """

    count: int
    participation: Participation
    absent: str = "keep"
    local_optimizer: LocalOptimizer = "keep"

    def __post_init__(self) -> None:
        check_types(self)
        if self.count < 1:
            raise ConfigError(f"{self.count} clients were given; there is at least 1")
        self.participation.check(self.count)
        _ = self.lasts

    @property
    def per_round(self) -> int:
        """How many take part, on average where that is drawn."""
        return round(self.participation.mean_size(self.count))

    @property
    def lasts(self) -> float:
        """After how many rounds at most a client still finds its memory; 0 if every turn begins anew."""
        known = {"keep": math.inf, "fresh": 0.0}
        if self.absent in known:
            return known[self.absent]
        match = re.fullmatch(r"drop:([1-9]\d{0,11})", self.absent)
        if match is None:
            raise ConfigError(
                f"the memory of the absent is to be {self.absent!r}; it is keep, fresh, or drop:N, which gives it up "
                "after N rounds of absence, 1 or more"
            )
        return float(match[1])


def make_clients(count: int, per_round: int, kind: str, absent: str, local_optimizer: Any) -> Clients:
    """The clients of the command line's options.

    Args:
        count: of clients.
        per_round: how many take part in a round, on average if they do so independently.
        kind: one of :data:`KINDS`.
        absent: see :class:`Clients`.
        local_optimizer: see :class:`Clients`.

    Raises:
        ConfigError: what cannot be.

    Example:
        >>> make_clients(1000, 20, "independent", "keep", "fresh").participation
        Independent(probability=0.02)
    """
    if count < 1 or not 1 <= per_round <= count:
        raise ConfigError(
            f"--clients {count} --per-round {per_round} was given; there is at least 1 client, and 1 to all of them "
            "take part in a round"
        )
    ways: dict[str, Participation] = {
        "uniform": Uniform(per_round), "independent": Independent(per_round / count), "cyclic": Cyclic(per_round)
    }  # fmt: skip
    if kind not in ways:
        raise ConfigError(f"--participation {kind} was given; it is {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    return Clients(count=count, participation=ways[kind], absent=absent, local_optimizer=local_optimizer)
