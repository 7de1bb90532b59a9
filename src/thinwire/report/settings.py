"""Under what a comparison was made, as it was recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinwire.report.fields import field, finite, printable


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedMetric:
    """What was measured.

    Args:
        name: one or two words, such as ``accuracy``.
        higher_is_better: the direction of progress.
        logarithmic: whether a log axis shows it best.
    """

    name: str
    higher_is_better: bool
    logarithmic: bool

    @property
    def is_share(self) -> bool:
        """Whether it is a part of all examples, whose differences are told in points."""
        return self.name.endswith("accuracy")

    def at_least_as_good(self, value: float, target: float) -> bool:
        """Whether ``value`` reaches ``target``; NaN reaches nothing."""
        return value >= target if self.higher_is_better else value <= target


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedNetwork:
    """The link of every worker: bytes per second and seconds per message; how many workers have another one."""

    bandwidth_Bps: float
    latency_s: float
    uplink_Bps: float | None
    num_others: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedMachines:
    """The seconds of a step, and whether workers or steps differ from each other."""

    compute_s: float
    are_equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedClients:
    """Who took turns as workers.

    Args:
        count: how many there were.
        participation: how those of a round were found, as the class is called: ``Uniform``.
        absent: what became of the others' memories: ``keep``, ``fresh`` or ``drop:N``.
        local_optimizer: what became of the state of their optimizers: ``keep`` or ``fresh``.
    """

    count: int
    participation: str
    absent: str
    local_optimizer: str

    @property
    def text(self) -> str:
        """All of it in words."""
        waits = {"keep": "kept", "fresh": "not kept"}
        memory = waits.get(self.absent, f"given up after {self.absent.removeprefix('drop:')} rounds")
        optimizer = waits.get(self.local_optimizer, self.local_optimizer)
        return (
            f"{self.count:,} clients, {self.participation.lower()} participation, memories of the absent {memory}, "
            f"state of their optimizers {optimizer}"
        )


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RecordedSetting:
    """What a search may choose for a method: an optimizer, options of the method, a learning rate."""

    optimizer: str
    options: str
    lr: float

    @property
    def name(self) -> str:
        """The optimizer and the options, without the learning rate."""
        return f"{self.optimizer}, {self.options}" if self.options else self.optimizer


def recorded_exchanges(about: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    """The type of each method's exchange, and of those inside it; none in folders that do not say it."""
    products = field(about, "products", where, dict) if "products" in about else {}
    found = {}
    for name in products:
        kinds, part = [], field(products, name, where, dict).get("exchange")
        while isinstance(part, dict):
            kinds.append(field(part, "type", where, str))
            part = part.get("exchange")
        found[printable(name)] = tuple(kinds)
    return found


def recorded_clients(about: Mapping[str, Any], where: str) -> RecordedClients | None:
    """Of clients that took turns; None where the workers were always the same, and in folders that do not say it."""
    if about.get("clients") is None:
        return None
    clients = field(about, "clients", where, dict)
    return RecordedClients(
        count=field(clients, "count", where, int),
        participation=printable(field(field(clients, "participation", where, dict), "type", where, str)),
        absent=printable(field(clients, "absent", where, str)),
        local_optimizer=printable(field(clients, "local_optimizer", where, str)),
    )


def recorded_links(about: Mapping[str, Any], where: str) -> tuple[tuple[str, dict[str, float]], ...]:
    """Links, and the seconds of a step of each method; none in folders that do not say it."""
    found = []
    for entry in field(about, "links", where, list) if "links" in about else []:
        steps = field({"links": entry}, "links", where, dict)
        seconds = field(steps, "seconds_per_step", where, dict)
        each = {printable(name): finite(seconds, name, where) for name in seconds}
        found.append((field(steps, "network", where, str), each))
    return tuple(found)
