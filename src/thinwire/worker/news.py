"""What workers tell each other when an exchange could not count, and what all conclude from it.

A worker that has something to tell takes part in the exchange with NaN in place of its vector. So the mean is NaN on
all, in whatever way it is formed, all tell, and all conclude the same. As long as there is nothing to tell it costs
nothing.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thinwire.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What all workers must have in common before their first exchange.

    Args:
        method: as text.
        seed: of its randomness.
        size: number of workers.
        layout: names and shapes of what is exchanged.
        values: the checksum of the parameters.
    """

    method: str
    seed: int
    size: int
    layout: str
    values: int

    def to_text(self) -> str:
        """For :func:`check_beginnings`."""
        return json.dumps(dataclasses.asdict(self))


def check_beginnings(texts: Sequence[str]) -> None:
    """Raise :class:`ConfigError` on every worker if they do not begin alike.

    Example:
        >>> own = Beginning(method="sgd", seed=0, size=2, layout="w (1,)", values=1)
        >>> check_beginnings([own.to_text(), dataclasses.replace(own, seed=1).to_text()])
        Traceback (most recent call last):
        ...
        thinwire.errors.ConfigError: the workers differ in seed, which must be the same on all: 0 (worker 0), ...
    """
    said = [json.loads(text) for text in texts]
    for name in said[0]:
        if len({str(each[name]) for each in said}) > 1:
            what = "the initial parameters (these are checksums)" if name == "values" else name
            raise ConfigError(f"the workers differ in {what}, which must be the same on all: {_listed(said, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What one worker has to tell.

    Args:
        has_news: whether it asked to tell; if not, it tells what it would.
        first_nonfinite: the parameter in which its vector was not finite.
        trained: what it trains: names, shapes and dtypes.
        used: what of this has a gradient; under model averaging all of it.
        begins: the checksum of each parameter's value that joins.
        written: the checksum of each parameter that was written to between two steps.
        is_sure: whether what was written cannot be this worker's own work.
        adrift: frozen parameters which are not at the common point yet.
        point: the checksum of the parameters that all should have in common.
    """

    has_news: bool = True
    first_nonfinite: str = ""
    trained: Mapping[str, str] = field(default_factory=dict)
    used: Sequence[str] = ()
    begins: Mapping[str, int] = field(default_factory=dict)
    written: Mapping[str, int] = field(default_factory=dict)
    is_sure: bool = False
    adrift: Sequence[str] = ()
    point: int = 0

    def to_text(self) -> str:
        """For :func:`conclude`."""
        return json.dumps(dataclasses.asdict(self))


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What all workers conclude.

    Args:
        first_nonfinite: where some vector was not finite; empty if all were.
        used: what is exchanged from now on, in the first worker's order.
        written: what is the new common point of these: all have written the same.
        apart: what some have written on their own, which counts as their work.
        adrift: frozen parameters that have to take part until they are at the common point.
        is_new: whether some worker had news.
    """

    first_nonfinite: str
    used: list[str]
    written: list[str]
    apart: list[str]
    adrift: list[str]
    is_new: bool


def conclude(texts: Sequence[str]) -> Conclusion:
    """What follows from the news of all workers; the same on each.

    Raises:
        ConfigError: they do not train the same, or hold different values of what they should have in common.
    """
    said = [json.loads(text) for text in texts]
    first = said[0]
    _all_alike(said, lambda each: each["trained"], "train different parameters", _TOGETHER)
    _all_alike(
        said, lambda each: each["begins"], "hold different values of parameters that join the training",
        "give them the same values on all (one seed, one file, or torch.distributed.broadcast) before the optimizer "
        "gets them",
    )  # fmt: skip
    _all_alike(said, lambda each: {"the model": each["point"]}, "have come apart", _ALIKE)
    alike = all(each["written"] == first["written"] for each in said)
    if not alike and any(each["is_sure"] for each in said):
        _all_alike(said, lambda each: each["written"], "have had different values written to their parameters", _ALIKE)
    names = {name for each in said for name in each["written"]}
    used = {name for each in said for name in each["used"]}
    adrift = {name for each in said for name in each["adrift"]}
    return Conclusion(
        next((each["first_nonfinite"] for each in said if each["first_nonfinite"]), ""),
        [name for name in first["trained"] if name in used],
        list(first["written"]) if alike else [],
        [] if alike else sorted(names),
        sorted(adrift),
        any(each["has_news"] for each in said),
    )


def plain_text(value: object) -> str:
    """What is written of a value, without the addresses at which a process happens to keep it."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


_TOGETHER = "freeze, unfreeze, add and replace layers on all processes at the same step"
_ALIKE = (
    "write to parameters (load_state_dict and the like) on all processes alike, or make a new handle after it, which "
    "begins with the values of process 0"
)


def _all_alike(
    said: Sequence[Mapping[str, Any]], part: "Callable[[Mapping[str, Any]], Mapping[str, Any]]", what: str,
    advice: str,
) -> None:  # fmt: skip
    parts = [part(each) for each in said]
    if all(each == parts[0] for each in parts):
        return
    names = [*dict.fromkeys(name for each in parts for name in each)]
    name = next(name for name in names if len({repr(each.get(name)) for each in parts}) > 1)
    listed = ", ".join(f"{each.get(name, 'not there')} (worker {rank})" for rank, each in enumerate(parts))
    raise ConfigError(f"the workers {what}, such as {name!r}: {listed}; {advice}")


def _listed(said: Sequence[Mapping[str, object]], name: str) -> str:
    return ", ".join(f"{each[name]} (worker {rank})" for rank, each in enumerate(said))
