"""Dataclasses to and from JSON, by the name of the class."""

import dataclasses
import difflib
import math
from typing import Any, TypeVar

from thinwire.errors import ConfigError

C = TypeVar("C", bound=type)
_REGISTRY: dict[str, type] = {}


def register(cls: C) -> C:
    """Class decorator: make a frozen dataclass known by its name to :func:`from_json` and the contract suites.

    Raises:
        ConfigError: it is no frozen dataclass, or another class of that name is registered.
    """
    if not dataclasses.is_dataclass(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ConfigError(f"{cls.__name__} cannot be registered: only frozen dataclasses can")
    known = _REGISTRY.setdefault(cls.__name__, cls)
    # slots=True makes a second class object of one definition, so identity is judged by where it is defined.
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigError(f"a class named {cls.__name__} is already registered, by {known.__module__}; rename one")
    return cls


def registered() -> dict[str, type]:
    """Every registered class by name, in the order of registration."""
    return dict(_REGISTRY)


def to_json(value: Any) -> Any:
    """JSON-ready form of registered dataclasses, tuples and plain values.

    Example:
        >>> from thinwire.compressors import TopK
        >>> to_json(TopK(k=3))
        {'type': 'TopK', 'density': None, 'k': 3, 'values': {'type': 'Identity'}}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        if name not in _REGISTRY:
            raise ConfigError(f"{name} cannot be written as JSON: decorate it with thinwire.config.register")
        fields = {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": name, **fields}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"a {type(value).__name__} cannot be part of a configuration")


def from_json(data: Any) -> Any:
    """The value that :func:`to_json` wrote; lists become tuples.

    Raises:
        ConfigError: an unknown type or field, or a value that the class refuses.

    Example:
        >>> from_json({"type": "TopK", "k": 3})
        TopK(density=None, k=3, values=Identity())
    """
    if isinstance(data, list):
        return tuple(from_json(item) for item in data)
    if not isinstance(data, dict):
        return data
    name = data.get("type")
    if not isinstance(name, str) or name not in _REGISTRY:
        raise ConfigError(f"unknown type {name!r} in a configuration{suggest(str(name), list(_REGISTRY))}")
    cls = _REGISTRY[name]
    known = [field.name for field in dataclasses.fields(cls)]
    given = {key: from_json(value) for key, value in data.items() if key != "type"}
    for key in given:
        if key not in known:
            raise ConfigError(f"{name} has no field {key!r}; its fields are: {', '.join(known) or 'none'}")
    try:
        return cls(**given)
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{name} cannot be made of {given}: {error}") from error


def suggest(given: str, known: list[str]) -> str:
    """The end of an error message: the nearest known name, and all of them.

    Example:
        >>> suggest("topkk", ["sgd", "topk"])
        '; did you mean topk? Known: sgd, topk'
    """
    near = difflib.get_close_matches(given, known, n=1)
    return (f"; did you mean {near[0]}?" if near else ";") + f" Known: {', '.join(sorted(known))}"


def read_share(text: str) -> float:
    """A share that is written ``1%`` or ``0.01``.

    Raises:
        ConfigError: 1 or more without a percent sign, which may be meant as percent or not; or no number.

    Example:
        >>> read_share("1%"), read_share("0.01"), read_share("100%")
        (0.01, 0.01, 1.0)
        >>> read_share("1")
        Traceback (most recent call last):
        ...
        thinwire.errors.ConfigError: 1 alone is a share of 100 %; write 1% or 100%, whichever is meant
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise ConfigError(f"{text} is no share; write one such as 1% or 0.01") from None
    if not text.endswith("%") and 1 <= share < math.inf:
        raise ConfigError(
            f"{text} alone is a share of {100 * share:g} %; write {text}% or {100 * share:g}%, whichever is meant"
        )
    return share


def check_is(value: object, kind: type, what: str, wanted: str) -> None:
    """Refuse a value of another type, such as an argument that took another's place.

    Raises:
        ConfigError: it is no ``kind``.

    Example:
        >>> check_is(None, str, "a method", "a string such as topk:density=1%")
        Traceback (most recent call last):
        ...
        thinwire.errors.ConfigError: a method must be a string such as topk:density=1%; a NoneType was given: None
    """
    if not isinstance(value, kind):
        raise ConfigError(f"{what} must be {wanted}; a {type(value).__name__} was given: {value!r:.80}")
