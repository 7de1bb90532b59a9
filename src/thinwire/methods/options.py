"""Options of method strings: how each kind of value is read from text."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NewType, get_args, get_origin, get_type_hints

from thinwire.config import read_share, suggest
from thinwire.errors import ConfigError
from thinwire.layout import Chunks, Granularity, PerRow, PerTensor, Whole

Density = NewType("Density", float)
"""A kept share: ``1%`` or ``0.01``."""
Fraction = NewType("Fraction", float)
"""A number from 0 up to 1, such as a momentum."""


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword of a catalog row, with its kind of value and its default (None: not set)."""

    name: str
    kind: Any
    default: Any

    def describe(self) -> str:
        """The option as help texts show it, such as ``density=1%`` or ``exchange=gather|server``."""
        if get_origin(self.kind) is Literal:
            rest = [value for value in get_args(self.kind) if value != self.default]
            return f"{self.name}={'|'.join([str(self.default), *rest])}"
        if self.default is None:
            return f"[{self.name}]"
        return f"{self.name}={_show(self.default)}"


def options_of(row: Callable[..., Any]) -> dict[str, Option]:
    """The options of a catalog row: its keyword parameters, annotations and defaults."""
    hints = get_type_hints(row)
    parameters = inspect.signature(row).parameters.values()
    return {p.name: Option(p.name, hints[p.name], p.default) for p in parameters}


def read_options(text: str, method: str, options: dict[str, Option]) -> dict[str, Any]:
    """Values of ``name=value,name=value``.

    Raises:
        ConfigError: an unknown or repeated option, or a value that cannot be read.
    """
    values: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, given = part.partition("=")
        name = name.strip()
        if name not in options:
            known = suggest(name, list(options)) if options else "; it takes none"
            raise ConfigError(f"{method} has no option {name!r}{known}")
        if not equals or name in values:
            raise ConfigError(f"in {method}, write each option once, as {name}=VALUE; got {part!r}")
        values[name] = _read(given.strip(), options[name].kind, f"{method}: {name}")
    return values


def _read(text: str, kind: Any, where: str) -> Any:
    if get_origin(kind) is Literal:
        if text in get_args(kind):
            return text
        raise ConfigError(f"{where}={text} is not known; choose one of {', '.join(get_args(kind))}")
    if kind is Granularity:
        return _read_cut(text, where)
    kind = next((arm for arm in get_args(kind) if arm is not type(None)), kind)  # X | None
    if kind is bool:
        if text in ("yes", "no"):
            return text == "yes"
        raise ConfigError(f"{where}={text} cannot be read; write yes or no")
    try:
        if kind is Density:
            return read_share(text)
        return int(text) if kind is int else float(text)
    except ValueError:
        form = {Density: "a share such as 1% or 0.01", int: "a whole number"}.get(kind, "a number")
        raise ConfigError(f"{where}={text} cannot be read; write {form}") from None


def _read_cut(text: str, where: str) -> Granularity:
    if text == "whole":
        return Whole()
    if text == "tensor":
        return PerTensor()
    if text == "row":
        return PerRow()
    if text.isdecimal():
        return Chunks(int(text))
    raise ConfigError(f"{where}={text} cannot be read; write whole, tensor, row, or a number of entries")


def _show(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float() if 0 < value < 1:
            return f"{value:.3g}" if value >= 0.5 else f"{100 * value:.3g}%"
        case Whole():
            return "whole"
        case PerTensor():
            return "tensor"
        case PerRow():
            return "row"
        case Chunks(length):
            return str(length)
    return str(value)
