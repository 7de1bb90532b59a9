"""How long a step computes on each worker, on a virtual clock."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinwire.config import check_types, read_share
from thinwire.errors import ConfigError
from thinwire.option_strings import read_pairs, read_seconds
from thinwire.random import Key


@dataclass(frozen=True, slots=True)
class Machines:
    """Steps of ``compute_s`` seconds on average, on machines that differ and waver.

    Args:
        compute_s: seconds that a step of forward, backward and optimizer takes.
        jitter: standard deviation over mean of a step's time, which is lognormal.
        stall_share: share of steps that stall.
        stall_factor: how many times as long a step takes that stalls.
        slow: workers, and how many times as long as the others each of their steps takes.

    Raises:
        ConfigError: a value out of range.

    Example:
        >>> machines = Machines.parse("10ms, jitter=20%, stall=1%x8, slow=3x5")
        >>> machines.jitter, machines.stall_share, machines.stall_factor, machines.slow
        (0.2, 0.01, 8.0, ((3, 5.0),))
        >>> Machines(0.5, slow=((1, 2.0),)).seconds(Key(0), rank=1, step=0)
        1.0
    """

    compute_s: float = 0.01
    jitter: float = 0.0
    stall_share: float = 0.0
    stall_factor: float = 1.0
    slow: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.compute_s < math.inf:
            raise ConfigError(f"a compute time of {self.compute_s} s was given; it must be at least 0 and finite")
        if not 0 <= self.jitter < math.inf or not 0 <= self.stall_share <= 1:
            raise ConfigError(
                f"a jitter of {self.jitter} and a share of {self.stall_share} of stalling steps were given; jitter is "
                "0 or more and the share from 0 to 1"
            )
        for rank, factor in (*self.slow, (0, self.stall_factor)):
            if not 0 < factor < math.inf or rank < 0:
                raise ConfigError(f"worker {rank} is to take {factor} times as long; factors are above 0 and finite")

    @staticmethod
    def parse(text: str) -> "Machines":
        """Machines from ``10ms`` or ``10ms,jitter=20%,stall=1%x8,slow=0x2/3x5``.

        Raises:
            ConfigError: it cannot be read, or has a time other than 0 without a unit.
        """
        if not isinstance(text, str):
            raise ConfigError(f"Machines.parse reads text such as '10ms'; a {type(text).__name__} was given")
        first, comma, rest = text.partition(",")
        try:
            values: dict[str, Any] = {"compute_s": read_seconds(first)}
            if comma and not rest.strip():
                raise ValueError("nothing comes after the comma")
            for name, value in read_pairs(rest, "a step", _READ).items():
                values |= _READ[name](value)
        except ValueError as error:
            reason = f" ({error})" if isinstance(error, ConfigError) else ""
            raise ConfigError(
                f"cannot read the compute time {text!r}{reason}; give it such as 10ms, then, if wanted, "
                ",jitter=20% (standard deviation over mean), ,stall=1%x8 (a share of the steps takes 8 times as long), "
                ",slow=0x2/3x5 (worker 0 takes twice as long as the others, worker 3 five times)"
            ) from None
        return Machines(**values)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Machines":
        """The machines whose fields ``dataclasses.asdict`` gave."""
        return Machines(**{**data, "slow": tuple((rank, factor) for rank, factor in data["slow"])})

    def seconds(self, key: Key, rank: int, step: int) -> float:
        """What step ``step`` takes on worker ``rank``; the same for the same ``key``."""
        seconds = self.compute_s * next((factor for slow, factor in self.slow if slow == rank), 1.0)
        if not self.jitter and not self.stall_share:
            return seconds
        first, second, third = (
            (key.fold("compute", rank, step, name).bits64() + 0.5) / 2**64 for name in ("radius", "angle", "stall")
        )
        if self.jitter:
            variance = math.log1p(self.jitter**2)
            normal = math.sqrt(-2 * math.log(first)) * math.cos(2 * math.pi * second)
            seconds *= math.exp(math.sqrt(variance) * normal - variance / 2)
        return seconds * self.stall_factor if third < self.stall_share else seconds


def _stall(text: str) -> dict[str, Any]:
    share, _, factor = text.partition("x")
    return {"stall_share": read_share(share), "stall_factor": float(factor)}


def _slow(text: str) -> dict[str, Any]:
    pairs = [part.partition("x") for part in text.split("/")]
    return {"slow": tuple((int(rank), float(factor)) for rank, _, factor in pairs)}


_READ = {"jitter": lambda text: {"jitter": read_share(text)}, "stall": _stall, "slow": _slow}
