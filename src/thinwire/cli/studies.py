"""Study files: what ``thinwire compare`` is asked, as TOML, to be kept, sent to others and run again."""

import json
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from thinwire.config import suggest
from thinwire.errors import ConfigError

_SEPARATORS = {"methods": "", "seeds": ",", "lrs": ",", "optimizers": "; ", "tune": "; "}
"""Lists in a file; on the command line they are text with these between."""
_WHOLE = ("workers", "clients", "per_round", "steps", "tune_steps", "evaluate_every", "batch_size")
_CHOICES = {
    "engine": ("simulate", "processes"), "overlap": ("none", "ddp"),
    "participation": ("uniform", "independent", "cyclic"), "local_optimizer": ("keep", "fresh"),
}  # fmt: skip
_TEXTS = (
    "task", "network", "compute", "codec", "lr_schedule", "average", "data", "sharding", "memory_of_absent", *_CHOICES
)  # fmt: skip
KEYS = (*_SEPARATORS, *_WHOLE, "target", *_TEXTS)
"""All that a file may say, by the names of the command's options."""


def read_study(path: Path) -> dict[str, Any]:
    """The options of the command that a study file gives, as the command line would.

    Raises:
        ConfigError: no such file, no TOML, an unknown key, or a value of another kind.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the study {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the study {path} is no TOML: {error}") from error
    return {name: _option(str(path), name, value) for name, value in found.items()}


def _option(where: str, name: str, value: Any) -> Any:
    if name not in KEYS:
        raise ConfigError(f"the study {where} has an unknown key {name!r}{suggest(name, list(KEYS))}")
    if name in _SEPARATORS:
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in items):
            raise _unfit(where, name, value, "a list of texts or numbers")
        return [str(item) for item in items] if name == "methods" else _SEPARATORS[name].join(map(str, items))
    if name in _WHOLE and (not isinstance(value, int) or isinstance(value, bool)):
        raise _unfit(where, name, value, "a whole number")
    if name == "target":
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _unfit(where, name, value, "a number")
        return float(value)
    if name in _TEXTS and not isinstance(value, str):
        raise _unfit(where, name, value, "a text")
    if value not in _CHOICES.get(name, (value,)):
        raise _unfit(where, name, value, " or ".join(_CHOICES[name]))
    return value


def _unfit(where: str, name: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"the study {where} has {name} = {value!r:.80}; it takes {wanted}")


def merged(given: Mapping[str, Any], is_explicit: Callable[[str], bool], study: Path | None) -> dict[str, Any]:
    """The options of a study, of which those that the command line names take the command line's values.

    Args:
        given: every option of the command.
        is_explicit: whether the command line names it.
        study: the file, if there is one.

    Raises:
        ConfigError: see :func:`read_study`.
    """
    if study is None:
        return dict(given)
    asked = read_study(study)
    return {**given, **{name: value for name, value in asked.items() if not is_explicit(name)}}


def study_text(given: Mapping[str, Any], left_out: Collection[Any] = (None, "")) -> str:
    """The study file of a command, by :func:`read_study` read back to the same options.

    Args:
        given: every option of the command; others than :data:`KEYS` say nothing about what is compared.
        left_out: values of an option that was not given.

    Example:
        >>> print(study_text({"methods": ["sgd", "topk:k=3"], "seeds": "0,1", "workers": 4, "data": None}), end="")
        methods = ["sgd", "topk:k=3"]
        seeds = [0, 1]
        workers = 4
    """
    lines = []
    for name in KEYS:
        value = given.get(name)
        if value in left_out:
            continue
        if name in _SEPARATORS:
            items = value if isinstance(value, list | tuple) else str(value).split(_SEPARATORS[name].strip())
            shown = (
                "[" + ", ".join(_toml(item.strip(), name in ("seeds", "lrs")) for item in items if item.strip()) + "]"
            )
        else:
            shown = _toml(str(value), name in (*_WHOLE, "target"))
        lines.append(f"{name} = {shown}\n")
    return "".join(lines)


def _toml(text: str, is_number: bool) -> str:
    # TOML's strings are JSON's, but for characters that JSON writes as two.
    return text if is_number else json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
