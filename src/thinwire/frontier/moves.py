"""What can be changed a little in an operator: its numbers, switches and named choices, however deep they lie."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from thinwire.compressors import Compressor
from thinwire.errors import ConfigError
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
    found = []
    for path, kind, value in _fields(compressor, ()):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if path[-1] in KNOBS and is_number and get_origin(kind) is not Literal:
            found.append(Coordinate(path, value))
    return found


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
    for path, kind, value in _fields(compressor, ()):
        if path[-1] in FIXED:
            continue
        choices = (False, True) if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()
        found += [other for each in choices if each != value and (other := moved(compressor, path, each)) is not None]
    return found


def _fields(compressor: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any, Any]]:
    """Path, annotation and value of every field, those of nested operators after their own."""
    found = []
    hints = get_type_hints(type(compressor))
    for field in dataclasses.fields(compressor):
        value = getattr(compressor, field.name)
        place = (*path, field.name)
        if hints[field.name] is Compressor:
            found += _fields(value, place)
        else:
            found.append((place, hints[field.name], value))
    return found
