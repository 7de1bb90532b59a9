"""Studies: frozen files that say which commands answer a question, at a reduced size and at full size."""

import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from thinwire.errors import ConfigError
from thinwire.files import StrPath

Size = Literal["quick", "full"]
SIZES: tuple[Size, ...] = ("quick", "full")
_FOLDER = Path(__file__).parent / "studies"
_WITH_FOLDER = ("compare", "pareto", "speedup")
"""Commands that write a folder, in which they go on where they stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One command of a study.

    Args:
        study: whose it is.
        name: of the part, such as the data set.
        size: ``quick`` or ``full``.
        arguments: of the command line, without ``thinwire``, where results go, and how many run at a time.
        alone: whether it measures time, so that nothing else may run beside it.
    """

    study: str
    name: str
    size: Size
    arguments: tuple[str, ...]
    alone: bool = False

    @property
    def key(self) -> str:
        """``study/part``, by which demands name it."""
        return f"{self.study}/{self.name}"

    @property
    def command(self) -> str:
        """What a user types to see it alone."""
        return shlex.join(["thinwire", *self.arguments])

    def arguments_in(self, folder: StrPath) -> list[str]:
        """The arguments with results in a folder, and one simulation at a time: parts run beside each other."""
        lines = ["--json", str(Path(folder) / "rows.jsonl")]
        own = ["--out", str(folder), "--jobs", "1"] if self.arguments[0] in _WITH_FOLDER else []
        if "--engine" in self.arguments:
            own = own[:2]  # --jobs is of simulations
        return [*self.arguments, *own, *lines]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A question's experiments.

    Args:
        name: of its file.
        about: what is done, in a sentence.
        parts: of both sizes.
    """

    name: str
    about: str
    parts: tuple[Part, ...]


def read_studies(folder: StrPath = _FOLDER) -> dict[str, Study]:
    """All studies of a folder, by name.

    A file has ``about``, and a table ``quick`` and a table ``full`` of commands by part; ``alone = true`` where time is
    measured.

    Raises:
        ConfigError: a file is no TOML, or has other keys or values.

    Example:
        >>> studies = read_studies()
        >>> studies["threads"].parts[0].command.startswith("thinwire hogwild")
        True
    """
    return {path.stem: _read(path) for path in sorted(Path(folder).glob("*.toml"))}


def _read(path: Path) -> Study:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the study {path} cannot be read: {error}") from error
    unknown = sorted(set(found) - {"about", "alone", *SIZES})
    if unknown:
        raise ConfigError(f"the study {path} has an unknown key {unknown[0]!r}; it has about, alone, quick and full")
    about, alone = found.get("about"), found.get("alone", False)
    if not isinstance(about, str) or not isinstance(alone, bool):
        raise ConfigError(f"the study {path} needs about = a text, and alone = true or false if it is there")
    parts = [
        Part(study=path.stem, name=name, size=size, arguments=_arguments(path, name, command), alone=alone)
        for size in SIZES
        for name, command in _commands(path, found.get(size)).items()
    ]
    return Study(name=path.stem, about=about, parts=tuple(parts))


def _commands(path: Path, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict) or not table:
        raise ConfigError(f"the study {path} needs tables quick and full, with a command for each part")
    return table


def _arguments(path: Path, name: str, command: Any) -> tuple[str, ...]:
    if not isinstance(command, str):
        raise ConfigError(f"the study {path} has {name} = {command!r:.80}; it takes a command, as a text")
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigError(f"the study {path}: the command of {name} cannot be read: {error}") from error
    if not words:
        raise ConfigError(f"the study {path}: the command of {name} is empty")
    return words
