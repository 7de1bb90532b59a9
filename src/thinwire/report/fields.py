"""Files and JSON fields, read with errors that name the file and the line."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinwire.errors import ConfigError


def read_text(path: Path, *, may_be_empty: bool = False) -> str:
    """The text of a file, which must not be empty unless said so; ConfigError otherwise."""
    try:
        text = path.read_text(encoding="utf-8")
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
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: a JSON object was expected, got {type(entry).__name__}")
    return entry


def field(entry: Mapping[str, Any], key: str, where: str, kind: type, *, optional: bool = False) -> Any:
    """The entry ``key``, of type ``kind``, or None where ``optional``; ConfigError otherwise."""
    if key not in entry:
        raise ConfigError(f"{where}: the key {key!r} is missing; it has {', '.join(entry) or 'no keys'}")
    value = entry[key]
    if value is None and optional:
        return None
    # bool is an int to isinstance, and true is no count.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{where}: {key!r} must be {kind.__name__}, got {value!r}")
    return value


def number(entry: Mapping[str, Any], key: str, where: str, *, optional: bool = False) -> float | None:
    """The entry ``key`` as a float, or None where ``optional``; ConfigError otherwise."""
    if key in entry and entry[key] is None and optional:
        return None
    value = entry.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return float(field(entry, key, where, float))


def finite(entry: Mapping[str, Any], key: str, where: str) -> float:
    """The entry ``key`` as a finite float; ConfigError otherwise."""
    value = number(entry, key, where)
    if value is None or not math.isfinite(value):
        raise ConfigError(f"{where}: {key!r} must be a finite number, got {entry[key]!r}")
    return value


def number_or_nan(entry: Mapping[str, Any], key: str, where: str) -> float:
    """The entry ``key`` as a float, NaN for null and infinities; ConfigError for what is no number."""
    value = number(entry, key, where, optional=True)
    return value if value is not None and math.isfinite(value) else math.nan
