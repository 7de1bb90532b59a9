"""The records of comparisons as a table of pandas or polars."""

import json
from pathlib import Path
from typing import Any, Literal

from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.plugins import import_package

_FILES = {"tune": "tuning.jsonl", "final": "results.jsonl"}


def load(folder: StrPath, *, frame: Literal["pandas", "polars"] = "pandas") -> Any:
    """Every record of a comparison, or of all comparisons in a folder, as a DataFrame: one row an evaluation.

    Columns are the fields of a record (``method``, ``seed``, ``optimizer``, ``lr``, ``step``, ``value``,
    ``message_bytes``, ``memory_norm``, ...) after ``comparison``, the path of the comparison below the folder (``.``
    for the folder's own), and ``purpose``: ``tune`` for runs of the search, ``final`` for those that are reported.

    Args:
        folder: what ``thinwire compare`` wrote, or a folder of such folders, as of ``thinwire speedup``.
        frame: whose DataFrame; that of pandas has :func:`descriptions` in ``attrs["comparisons"]``.

    Raises:
        ConfigError: the folder holds no comparison, another frame was asked for, or its package is not installed.

    Example:
        >>> load("runs/none")
        Traceback (most recent call last):
        ...
        thinwire.errors.ConfigError: runs/none holds no comparison; give a folder that thinwire compare wrote, or ...
    """
    # The command line imports this package before it knows whether it needs torch.
    from thinwire.experiments.records import read_records

    comparisons = descriptions(folder)
    rows = [
        {"comparison": name, "purpose": purpose, **record}
        for name in comparisons
        for purpose, file in _FILES.items()
        for record in read_records(Path(folder) / name / file)
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    values = {column: [row.get(column) for row in rows] for column in columns}
    made = _package(frame).DataFrame(values)
    if frame == "pandas":
        made.attrs["comparisons"] = comparisons
    return made


def descriptions(folder: StrPath) -> dict[str, dict[str, Any]]:
    """What ``comparison.json`` says, by the path of each comparison below the folder.

    Raises:
        ConfigError: there is none, or one that cannot be read.
    """
    root = Path(folder)
    found = {}
    for path in sorted([*root.glob("comparison.json"), *root.glob("*/comparison.json")]):
        try:
            found[str(path.parent.relative_to(root))] = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{path} cannot be read ({error}); run the comparison again") from error
    if not found:
        raise ConfigError(
            f"{folder} holds no comparison; give a folder that thinwire compare wrote, or one of such folders"
        )
    return found


def _package(frame: str) -> Any:
    if frame not in ("pandas", "polars"):
        raise ConfigError(f"a frame of {frame!r} was asked for; it is 'pandas' or 'polars'")
    return import_package(frame, "a DataFrame")
