"""Options of method strings, and of tasks: how each kind of value is read from text."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NewType, get_args, get_origin, get_type_hints

from thinwire.config import read_share
from thinwire.errors import ConfigError
from thinwire.layout import Chunks, Granularity, PerRow, PerTensor, Whole
from thinwire.option_strings import read_pairs, unreadable

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
        return f"{self.name}={_show(self.default, self.kind)}"

    def to_json(self) -> dict[str, Any]:
        """Its name, its default as it is written (None: not set), and what may be chosen, if that is a list."""
        choices = list(get_args(self.kind)) if get_origin(self.kind) is Literal else None
        default = None if self.default is None else _show(self.default, self.kind)
        return {"name": self.name, "default": default, "choices": choices}


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
    given = read_pairs(text, method, options)
    return {name: _read(value, options[name].kind, method, name) for name, value in given.items()}


def _read(text: str, kind: Any, method: str, name: str) -> Any:
    if get_origin(kind) is Literal:
        if text in get_args(kind):
            return text
        raise ConfigError(f"{method}: {name}={text} is not known; choose one of {', '.join(get_args(kind))}")
    if kind is str:
        return text
    kind = _of(kind)
    if kind is Density:
        try:
            return read_share(text)
        except ConfigError as error:
            raise ConfigError(f"{method}: {name}={text} cannot be read: {error}") from None
    is_cut = kind is Granularity
    words: dict[str, Any] = _CUTS if is_cut else {"yes": True, "no": False} if kind is bool else {}
    if text in words:
        return words[text]
    is_whole = kind is int or (is_cut and text.isdecimal())
    if is_whole and len(text) > 18:
        raise ConfigError(f"{method}: {name} is given a number of {len(text)} digits; write one of at most 18")
    try:
        number = int(text) if is_whole else float("" if words else text)
    except ValueError:
        raise unreadable(method, name, text, _FORMS.get(kind, "a number")) from None
    return Chunks(int(number)) if is_cut else number


def _of(kind: Any) -> Any:
    """X of ``X | None``."""
    return next((arm for arm in get_args(kind) if arm is not type(None)), kind)


_CUTS: dict[str, Granularity] = {"whole": Whole(), "tensor": PerTensor(), "row": PerRow()}
_FORMS: dict[Any, str] = {
    bool: "yes or no",
    int: "a whole number",
    Granularity: "whole, tensor, row, or a number of entries",
}


def _show(value: Any, kind: Any) -> str:
    """The text from which the value is read."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float() if value < 0.5 and _of(kind) is Density:
            return f"{100 * value:.12g}%"
        case Chunks(length):
            return str(length)
    return next((name for name, cut in _CUTS.items() if cut == value), str(value))
