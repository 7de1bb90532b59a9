"""Files and JSON fields, read with errors that name the file and the line."""

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinwire.errors import ConfigError
from thinwire.files import StrPath

_LARGEST = 2**64
"""No count reaches it, and what does is no number that arithmetic here could take."""
_HUGE = 1e100
"""Beyond it means and ratios overflow; a run that gets there has diverged."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\|\Z)|.)", re.DOTALL)
"""What a terminal takes for a command: CSI sequences, strings such as titles and links, and the short ones."""


def read_text(path: StrPath, *, may_be_empty: bool = False) -> str:
    """The text of a file, which must not be empty unless said so; ConfigError otherwise."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; a report needs comparison.json, results.jsonl and tuning.jsonl "
            "in the folder that 'thinwire compare' wrote"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    if not text.strip() and not may_be_empty:
        raise ConfigError(f"{path}: the file is empty; run the comparison again")
    return text


def json_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object that ``text`` is; ConfigError naming ``where`` otherwise."""
    try:
        entry = json.loads(text)
    # Also numbers of thousands of digits, and lists in lists beyond all measure.
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: a JSON object was expected, got {type(entry).__name__}")
    return entry


def field(entry: Mapping[str, Any], key: str, where: str, kind: type, *, optional: bool = False) -> Any:
    """The entry ``key``, of type ``kind``, or None where ``optional``; ConfigError otherwise.

    Text is :func:`printable`, and a whole number has at most 64 bits.
    """
    if key not in entry:
        raise ConfigError(
            f"{where}: the key {key!r} is missing; it has {', '.join(map(printable, entry)) or 'no keys'}"
        )
    value = entry[key]
    if value is None and optional:
        return None
    # bool is an int to isinstance, and true is no count.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{where}: {key!r} must be {kind.__name__}, got {_shown(value)}")
    if isinstance(value, int) and not -_LARGEST < value < _LARGEST:
        raise ConfigError(f"{where}: {key!r} must be a number of at most 64 bits, got {_shown(value)}")
    return printable(value) if isinstance(value, str) else value


def texts(entry: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """The entry ``key``, a list, as :func:`printable` texts; ConfigError otherwise."""
    return tuple(printable(str(value)) for value in field(entry, key, where, list))


def whole_numbers(entry: Mapping[str, Any], key: str, where: str) -> tuple[int, ...]:
    """The entry ``key``, a list of whole numbers; ConfigError otherwise."""
    values = field(entry, key, where, list)
    return tuple(field({key: value}, key, where, int) for value in values)


def number(entry: Mapping[str, Any], key: str, where: str, *, optional: bool = False) -> float | None:
    """The entry ``key`` as a float, or None where ``optional``; ConfigError otherwise."""
    if key in entry and entry[key] is None and optional:
        return None
    value = entry.get(key)
    kind = int if isinstance(value, int) and not isinstance(value, bool) else float
    return float(field(entry, key, where, kind))


def finite(entry: Mapping[str, Any], key: str, where: str) -> float:
    """The entry ``key`` as a finite float; ConfigError otherwise."""
    value = number(entry, key, where)
    if value is None or not abs(value) < _HUGE:
        raise ConfigError(f"{where}: {key!r} must be a finite number below {_HUGE:g}, got {entry[key]!r}")
    return value


def number_or_nan(entry: Mapping[str, Any], key: str, where: str) -> float:
    """The entry ``key`` as a float, NaN for null and for what is beyond all measure; ConfigError for no number."""
    value = number(entry, key, where, optional=True)
    return value if value is not None and abs(value) < _HUGE else math.nan


def printable(text: str) -> str:
    r"""Text without what would move a terminal's cursor, colour it, turn the reading direction around, or not encode.

    Example:
        >>> printable("\x1b[31mtopk\x1b[0m:\x1b]0;title\x07k=1\n\u202e")
        'topk:k=1 '
    """
    spaced = re.sub(r"[\t\r\n]", " ", _ESCAPES.sub("", text))
    return "".join(char for char in spaced if unicodedata.category(char) not in ("Cc", "Cf", "Cs"))


def _shown(value: object) -> str:
    """A value in a message, which has an end."""
    if isinstance(value, int) and abs(value) >= _LARGEST:
        return f"one of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
