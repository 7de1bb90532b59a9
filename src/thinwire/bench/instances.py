"""Instances of every registered compressor, made from the fields of its class: a new one needs no entry anywhere."""

import dataclasses
import itertools
from typing import Any, Literal, get_args, get_origin, get_type_hints

from thinwire.compressors import QSGD, Compressor, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.frontier.configurations import compressor_classes, describe

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
    amounts = [field.name for field in dataclasses.fields(cls) if field.name in AMOUNTS]
    # A class that takes one of two amounts refuses both and neither.
    made = [one for name in amounts for one in _make(cls, name)] or _make(cls, None)
    if not made:
        raise ConfigError(
            f"no instance of the registered compressor {cls.__name__} could be made to time it; give its fields "
            "defaults"
        )
    return list({describe(one): one for one in made}.values())


def _make(cls: type, amount: str | None) -> list[Compressor]:
    hints = get_type_hints(cls)
    choices: dict[str, tuple[Any, ...]] = {}
    several = 1
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.name == amount:
            choices[field.name] = AMOUNTS[field.name]
        elif required:
            choices[field.name] = _FIELDS.get(field.name) or _values(hints[field.name])
        else:
            continue
        # One after another what sets the amount, or is nested; of anything else the first that is accepted.
        if field.name == amount or hints[field.name] is Compressor:
            several *= len(choices[field.name])
    made: list[Compressor] = []
    for values in itertools.product(*choices.values()):
        try:
            made.append(cls(**dict(zip(choices, values, strict=True))))
        except (ConfigError, TypeError):
            continue
        if len(made) == several:
            break
    return made


def _values(kind: Any) -> tuple[Any, ...]:
    if kind is Compressor:
        return _NESTED
    if kind is bool:
        return (False,)
    return get_args(kind) if get_origin(kind) is Literal else _NUMBERS
