"""Example instances of every registered compressor, derived from its fields: register one and every suite has it."""

import itertools
from dataclasses import MISSING, dataclass
from typing import Any

import thinwire.methods  # noqa: F401  registers everything
from thinwire.compressors import QSGD, Identity, KLevel, RandK, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.frontier.configurations import compressor_classes, fields_of

SAMPLES: dict[str, tuple[Any, ...]] = {
    "density": (0.1,),
    "k": (1, 5, 0.4),
    "levels": (1, 15),
    "values": (Identity(), Sign(), QSGD(levels=7, norm="max"), QSGD(levels=15, scaled=True)),
    "inner": (QSGD(levels=7), KLevel(levels=4)),
    "first": (TopK(density=0.1), RandK(density=0.3)),
    "second": (Sign(), QSGD(levels=7, norm="max")),
    "variance": (0.5,),
    "threshold": (1.0,),
    "bits": (0.3, 1, 1.5, 2, 3),
    "rank": (1, 2),
    "side": (2,),
    "columns": (5,),
    "block": (16,),
    "clip": (None,),
    "exact_below": (20,),
}
"""Values to try for a field of that name. Booleans and literals need none: all their values are tried."""


@dataclass(frozen=True, slots=True)
class Underivable:
    """A registered compressor of which no instance could be made."""

    name: str
    missing: tuple[str, ...]

    def __str__(self) -> str:
        what = f"no sample value for its fields {', '.join(self.missing)}" if self.missing else "no sample is accepted"
        return (
            f"no instance of the registered compressor {self.name} can be tested: {what}; "
            "add some to SAMPLES in tests/compressor_instances.py"
        )


def derive(cls: type) -> list[Any]:
    """Instances that the class accepts, so that every value of every field is in one, a field left out included."""
    known = {field: SAMPLES.get(field.name, field.choices) for field in fields_of(cls)}
    choices = {field.name: choice for field, choice in known.items() if choice or field.is_required}
    made: list[Any] = []
    covered: set[Any] = set()
    for values in itertools.product(*((MISSING, *choice) for choice in choices.values())):
        given = {name: value for name, value in zip(choices, values, strict=True) if value is not MISSING}
        try:
            instance = cls(**given)
        except (ConfigError, TypeError):
            continue
        chosen = {(name, getattr(instance, name)) for name in choices}
        if not made or not chosen <= covered:
            made.append(instance)
            covered |= chosen
    return made or [Underivable(cls.__name__, tuple(name for name, choice in choices.items() if not choice))]


def cases() -> list[Any]:
    """Instances of every registered class that satisfies the Compressor protocol."""
    return [case for cls in compressor_classes() for case in derive(cls)]
