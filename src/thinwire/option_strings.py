"""Text such as ``name:key=value,key=value``: how it is taken apart, and what is said of what cannot be read."""

import math
import re
from collections.abc import Collection

from thinwire.config import suggest
from thinwire.errors import ConfigError

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def split_name(text: str, what: str, known: Collection[str], more: str = "") -> tuple[str, str]:
    """The name at the beginning, which is one of the known ones, and the text of its options.

    Args:
        text: ``name`` or ``name:key=value,...``.
        what: is named, for the message.
        known: names.
        more: the end of the message.

    Raises:
        ConfigError: an unknown name.

    Example:
        >>> split_name("drops:at=10", "learning-rate schedule", ["constant", "drops"])
        ('drops', 'at=10')
    """
    name, _, rest = text.partition(":")
    if name.strip() not in known:
        raise ConfigError(f"unknown {what} {name!r}{suggest(name, list(known))}{more}")
    return name.strip(), rest


def read_pairs(text: str, where: str, known: Collection[str]) -> dict[str, str]:
    """The values of ``key=value,key=value``, as text.

    Args:
        text: may be empty, or end with a comma.
        where: whose options they are, for the message.
        known: keys.

    Raises:
        ConfigError: an unknown or repeated key, or one without a value.

    Example:
        >>> read_pairs("density=1%, every = 2", "topk", ["density", "every"])
        {'density': '1%', 'every': '2'}
    """
    values: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = part.partition("=")
        name = name.strip()
        if name not in known:
            ending = suggest(name, list(known)) if known else "; it takes none"
            raise ConfigError(f"{where} has no option {name!r}{ending}")
        if not equals or name in values:
            raise ConfigError(f"in {where}, write each option once, as {name}=VALUE; got {part!r}")
        values[name] = value.strip()
    return values


def unreadable(where: str, name: str, value: str, form: str) -> ConfigError:
    """What is raised of an option whose value cannot be read.

    Example:
        >>> unreadable("topk", "every", "x", "a whole number").args[0]
        'topk: every=x cannot be read; write a whole number'
    """
    return ConfigError(f"{where}: {name}={value} cannot be read; write {form}")


def read_seconds(text: str) -> float:
    """Seconds from ``20ms``, ``1.5s`` or ``50us``; only what is the same in every unit, such as 0, needs none.

    Raises:
        ConfigError: a number without a unit.
        ValueError: no number.

    Example:
        >>> read_seconds("20ms"), read_seconds(" 2 s"), read_seconds("0")
        (0.02, 2.0, 0.0)
    """
    match = re.fullmatch(r"([-+.\dnaif]+)\s*(us|ms|s)?", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time")
    number = float(match[1])
    if match[2] is None and number and math.isfinite(number):
        raise ConfigError(f"{match[1]} has no unit; write {match[1]}ms or {match[1]}s")
    return number * _SECONDS[match[2] or "s"]
