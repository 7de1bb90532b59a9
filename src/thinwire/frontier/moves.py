"""What can be changed a little in an operator: its numbers, switches and named choices, however deep they lie."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from thinwire.compressors import Compressor
from thinwire.errors import ConfigError
from thinwire.frontier.configurations import Field, fields_of
from thinwire.frontier.ladders import FIXED, KNOBS


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A number that sets how much is sent.

    Args:
        path: names of the fields that lead to it, from the outermost operator on.
        value: what it is now.
    """

    path: tuple[str, ...]
    value: float

    def times(self, factor: float) -> float:
        """The number multiplied by about ``factor``: a whole one changes by at least 1.

        Example:
            >>> Coordinate(("levels",), 7).times(1.01), Coordinate(("density",), 0.5).times(0.5)
            (8, 0.25)
        """
        if not isinstance(self.value, int):
            return self.value * factor
        if factor > 1.0:
            return max(self.value + 1, round(self.value * factor))
        return min(self.value - 1, round(self.value * factor))


def coordinates(compressor: Compressor) -> list[Coordinate]:
    """Every number of an operator and of those that are nested in it.

    Example:
        >>> from thinwire.compressors import QSGD, TopK
        >>> [each.path for each in coordinates(TopK(density=0.1, values=QSGD(levels=7)))]
        [('density',), ('values', 'levels')]
    """
    return [
        Coordinate(path, value)
        for path, field, value in _fields(compressor, ())
        if field.name in KNOBS and not field.choices and isinstance(value, int | float)
    ]


def moved(compressor: Compressor, path: tuple[str, ...], value: Any) -> Compressor | None:
    """The operator with another value at a place; none where it refuses that.

    Example:
        >>> from thinwire.compressors import QSGD, TopK
        >>> moved(TopK(density=0.1, values=QSGD(levels=7)), ("values", "levels"), 15).values.levels
        15
        >>> moved(TopK(density=0.1), ("density",), 1.5) is None
        True
    """
    name, *rest = path
    if rest:
        value = moved(getattr(compressor, name), tuple(rest), value)
    if value is None:
        return None
    try:
        return dataclasses.replace(compressor, **{name: value})  # type: ignore[type-var]
    except ConfigError:
        return None


def switched(compressor: Compressor) -> list[Compressor]:
    """Every operator that differs from this one by one switch or one named choice.

    Example:
        >>> from thinwire.compressors.eden import EDEN
        >>> [(other.rounds, other.scale) for other in switched(EDEN(1.0))]
        [(1, 'unbiased'), (2, 'contraction')]
    """
    found = []
    for path, field, value in _fields(compressor, ()):
        others = [each for each in field.choices if each != value] if field.name not in FIXED else []
        found += [other for each in others if (other := moved(compressor, path, each)) is not None]
    return found


def _fields(compressor: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Field, Any]]:
    """Path, field and value of every field, those of nested operators in their place."""
    found = []
    cls: type = type(compressor)
    for field in fields_of(cls):
        value, place = getattr(compressor, field.name), (*path, field.name)
        found += _fields(value, place) if field.is_nested else [(place, field, value)]
    return found
