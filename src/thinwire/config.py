"""Dataclasses to and from JSON, by the name of the class, and of what types their fields are."""

import ast
import dataclasses
import difflib
import functools
import math
import numbers
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from thinwire.errors import ConfigError

C = TypeVar("C", bound=type)
_REGISTRY: dict[str, type] = {}

_FORMER_NAMES = {
    "Cosine": "DCT",
    "OwnerQuantized": "CompressedReduceScatter",
    "OwnerSharded": "SparseReduceScatter",
    "wipe_memory": "reset_memory",
}
"""Classes and fields that were renamed: what was written before is still read."""


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
    data = {_FORMER_NAMES.get(key, key): value for key, value in data.items()}
    name = data.get("type")
    name = _FORMER_NAMES.get(name, name) if isinstance(name, str) else name
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


def as_written_today(text: str) -> str:
    """The ``repr`` of a configuration, as it is today, of one that was written by an earlier version.

    Renamed classes and fields have their new names, and fields that were added since have their defaults. What cannot
    be read is given back as it is.

    Example:
        >>> import thinwire.exchanges
        >>> as_written_today("OwnerSharded(select=None)")
        'SparseReduceScatter(select=None, remember=True, balanced=False)'
    """
    try:
        return repr(from_json(_json_of(ast.parse(text, mode="eval").body)))
    except (ConfigError, SyntaxError, ValueError, RecursionError, MemoryError):
        return text


def _json_of(node: ast.expr) -> Any:
    """What :func:`to_json` gives for the value of which this is the ``repr``."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=[], keywords=given):
            return {"type": name, **{str(each.arg): _json_of(each.value) for each in given}}
        case ast.Tuple(elts=items):
            return [_json_of(item) for item in items]
        case ast.Name(id="inf"):
            return math.inf
        case _:
            return ast.literal_eval(node)


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


Share: TypeAlias = Annotated[float, "share"]
"""The type of a field that is a share: a number or, as in method strings, text such as ``"1%"`` or ``"0.01"``."""


def check_types(value: object) -> None:
    """Refuse a frozen dataclass with a field of the wrong type; for the beginning of its ``__post_init__``.

    Of a ``Literal`` only what it lists will do. Numbers of other libraries become Python's own, lists become tuples,
    and the text of a :data:`Share` its number.

    Raises:
        ConfigError: with the field, what was given and what it takes.

    Example:
        >>> from thinwire.compressors import TopK
        >>> TopK(density="1%")
        TopK(density=0.01, k=None, values=Identity())
    """
    for name, hint in field_types(type(value)).items():  # type: ignore[arg-type]
        given = getattr(value, name)
        fitting = _fitted(given, hint)
        if fitting is _UNFIT:
            shown = f"the class {given.__name__}" if isinstance(given, type) else f"{given!r}"
            raise ConfigError(f"{type(value).__name__} was given {name} = {shown}; it takes {_described(hint)}")
        if fitting is not given:
            object.__setattr__(value, name, fitting)


_UNFIT = object()
"""In place of a value: there is none of that type."""


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """The type of each field of a dataclass, with names resolved; found out once a class. Do not write to it.

    Example:
        >>> from thinwire.layout import Chunks
        >>> field_types(Chunks)
        {'length': <class 'int'>}
    """
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _fitted(given: Any, hint: Any) -> Any:
    """The value as the type has it, or :data:`_UNFIT`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType, Literal):
        kinds = dict.fromkeys(map(type, arguments)) if origin is Literal else arguments
        each = (_fitted(given, kind) for kind in kinds)
        fitting = next((fitting for fitting in each if fitting is not _UNFIT), _UNFIT)
        return fitting if origin is not Literal or fitting in arguments else _UNFIT
    if hint == Share:
        return _fitted_share(given)
    if origin is tuple:
        return _fitted_tuple(given, arguments)
    if hint in (int, float):
        return _fitted_number(given, hint)
    if not isinstance(hint, type):
        return given  # a function or the like: nothing to say before it is called
    # A class has the methods of a protocol too.
    return given if isinstance(given, hint) and not isinstance(given, type) else _UNFIT


def _fitted_number(given: Any, hint: Any) -> Any:
    if isinstance(given, bool) or type(given) in (int, float):
        return given if type(given) in (int, hint) else _UNFIT
    if isinstance(given, numbers.Integral):
        return int(given)
    return float(given) if isinstance(given, numbers.Real) and hint is float else _UNFIT


def _fitted_share(given: Any) -> Any:
    if not isinstance(given, str):
        return _fitted_number(given, float)
    try:
        return read_share(given.strip())
    except ValueError:
        return _UNFIT


def _fitted_tuple(given: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(given, tuple | list):
        return _UNFIT
    kinds = arguments[:1] * len(given) if arguments[1:] == (...,) else arguments
    if len(kinds) != len(given):
        return _UNFIT
    fitting = tuple(_fitted(item, kind) for item, kind in zip(given, kinds, strict=True))
    if any(item is _UNFIT for item in fitting):
        return _UNFIT
    same = isinstance(given, tuple) and all(one is other for one, other in zip(fitting, given, strict=True))
    return given if same else fitting


def _described(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_described, arguments))
    if hint == Share:
        return 'a share such as 0.01 or "1%"'
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        return "a tuple"
    simple = {int: "a whole number", float: "a number", bool: "True or False", str: "text", type(None): "None"}
    return simple.get(hint, f"an object of {hint.__name__}" if isinstance(hint, type) else str(hint))
