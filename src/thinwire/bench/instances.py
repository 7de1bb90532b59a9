"""Instances of every registered compressor, made from the fields of its class: a new one needs no entry anywhere."""

import itertools
import math
from typing import Any

from thinwire.compressors import QSGD, Compressor, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.frontier.configurations import Field, compressor_classes, describe, fields_of

AMOUNTS: dict[str, tuple[Any, ...]] = {
    "density": (0.01,),
    "variance": (1.0,),
    "bits": (1, 1.5, 2, 4, 8),
    "levels": (1, 7),
    "rank": (4,),
}
"""Values of fields that set how much is sent; each is tried with all others left out, and has rows of its own."""
_FIELDS: dict[str, tuple[Any, ...]] = {"first": (TopK(density=0.01),), "second": (Sign(),)}
_NUMBERS = (1, 2, 4, 0.01, 0.1, 0.5)
_NESTED = (QSGD(levels=7, norm="max"), TopK(density=0.01))


def instances() -> list[Compressor]:
    """At least one of every registered compressor.

    Raises:
        ConfigError: a class that accepts nothing that is tried here.

    Example:
        >>> sum(describe(one) == "TopK(density=0.01)" for one in instances())
        1
    """
    return [one for cls in compressor_classes() for one in instances_of(cls)]


def instances_of(cls: type) -> list[Compressor]:
    """Those of one class: along the first of :data:`AMOUNTS` that it has, or with what its fields have to be given.

    Raises:
        ConfigError: none can be made.

    Example:
        >>> from thinwire.compressors import QSGD
        >>> [describe(one) for one in instances_of(QSGD)]
        ['QSGD(levels=1)', 'QSGD(levels=7)']
    """
    amounts = [field.name for field in fields_of(cls) if field.name in AMOUNTS]
    # A class that takes one of two amounts refuses both and neither.
    made = [one for name in amounts for one in _make(cls, name)] or _make(cls, None)
    if not made:
        raise ConfigError(
            f"no instance of the registered compressor {cls.__name__} could be made to time it; give its fields "
            "defaults"
        )
    return list({describe(one): one for one in made}.values())


def _make(cls: type, amount: str | None) -> list[Compressor]:
    given = [field for field in fields_of(cls) if field.name == amount or field.is_required]
    choices = {field.name: AMOUNTS[field.name] if field.name == amount else _values(field) for field in given}
    # One after another what sets the amount, or is nested; of anything else the first that is accepted.
    several = math.prod(len(choices[field.name]) for field in given if field.name == amount or field.is_nested)
    made: list[Compressor] = []
    for values in itertools.product(*choices.values()):
        try:
            made.append(cls(**dict(zip(choices, values, strict=True))))
        except (ConfigError, TypeError):
            continue
        if len(made) == several:
            break
    return made


def _values(field: Field) -> tuple[Any, ...]:
    return _FIELDS.get(field.name) or (_NESTED if field.is_nested else field.choices or _NUMBERS)
