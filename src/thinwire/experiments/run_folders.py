"""The folder of a comparison: which comparison it holds, and which of several numbered ones is taken."""

import glob
import importlib.metadata
import itertools
import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from thinwire.errors import ConfigError
from thinwire.experiments.spec import Comparison
from thinwire.files import StrPath

Holder = Literal["none", "this", "another"]
_MAY_CHANGE = ("methods", "seeds", "lrs", "adaptive_lrs", "optimizers", "tune", "target")
_ONLY_SIMULATED = ("network", "compute", "codec", "overlap")


def read_description(out: StrPath) -> dict[str, Any]:
    """The ``comparison.json`` of an earlier call; empty if there was none.

    Raises:
        ConfigError: it is no comparison of this version.
    """
    path = Path(out) / "comparison.json"
    if not path.exists():
        return {}
    try:
        description = json.loads(path.read_text())
        Comparison.from_json(description)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{path} is not a comparison of this version ({error}); choose another --out") from error
    return dict(description)


def differences(before: Mapping[str, Any], comparison: Comparison) -> list[str]:
    """What keeps a comparison from going on in the folder that ``before`` describes; none if there is no such thing."""
    if not before:
        return []
    then, now = Comparison.from_json(dict(before)).to_json(), comparison.to_json()
    free = (*_MAY_CHANGE, *(_ONLY_SIMULATED if comparison.engine == "processes" else ()))
    fixed = [name for name in now if name not in free]
    made = before.get("made_by", {})
    return [
        *(f"{name} {then[name]}, now {now[name]}" for name in fixed if then[name] != now[name]),
        *(
            f"made by {name} {made.get(name, 'unknown')}, now {version}"
            for name, version in made_by().items()
            if made.get(name) != version
        ),
    ]


def holder(out: StrPath, comparison: Comparison) -> Holder:
    """What a folder holds: nothing, this very comparison, which goes on there, or another one."""
    try:
        before = read_description(out)
    except ConfigError:
        return "another"
    if not before:
        return "none"
    return "another" if differences(before, comparison) else "this"


def choose_number(base: StrPath, look: Callable[[StrPath], Holder]) -> int:
    """Which of ``base``, ``base-2``, ``base-3``, ... to take: that which holds this comparison, or the first free one.

    Args:
        base: the first folder.
        look: what a folder holds.
    """
    base, numbers = Path(base), [1]
    for path in base.parent.glob(f"{glob.escape(base.name)}-*"):
        tail = path.name.removeprefix(f"{base.name}-")
        if tail.isascii() and tail.isdigit() and tail[0] != "0" and int(tail) > 1:
            numbers.append(int(tail))
    found = {number: look(folder_of(base, number)) for number in sorted(numbers)}
    for number, held in found.items():
        if held == "this":
            return number
    return next(number for number in itertools.count(1) if found.get(number, "none") == "none")


def folder_of(base: StrPath, number: int) -> Path:
    """``base`` itself for 1, else with the number behind its name.

    Example:
        >>> folder_of(Path("runs/digits"), 1).name, folder_of(Path("runs/digits"), 2).name
        ('digits', 'digits-2')
    """
    first = Path(base)
    return first if number == 1 else first.with_name(f"{first.name}-{number}")


def made_by() -> dict[str, str]:
    """The versions that numbers may depend on."""
    try:
        own = importlib.metadata.version("thinwire")
    except importlib.metadata.PackageNotFoundError:
        own = "of a source tree"  # run from its files, without installation
    return {"thinwire": own, "torch": torch.__version__, "python": platform.python_version()}


def refuse_unwritable(out: StrPath) -> None:
    """Raise ConfigError where a folder cannot be.

    Nothing is written yet, so the folders that would be made are judged by the last one that is there.
    """
    for folder in (Path(out), *Path(out).parents):
        try:
            there = folder.exists()
        except OSError as error:
            raise ConfigError(f"--out {out} cannot be used: {error}; give another folder") from error
        if not there:
            continue
        if not folder.is_dir():
            raise ConfigError(f"--out {out} cannot be used: {folder} is a file; give a folder, or a path for a new one")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"--out {out} cannot be used: {folder} is not writable; give another folder")
        return
