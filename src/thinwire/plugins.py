"""What installed packages bring: to thinwire, by their entry points, or what a part of it needs; imported late."""

import functools
import importlib
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from thinwire.errors import ConfigError, ThinwireError

Group = Literal["thinwire.tasks", "thinwire.methods", "thinwire.parts"]
"""Functions that make tasks; rows of the catalog of methods; modules whose import registers compressors."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point of an installed package.

    Args:
        name: what the user types.
        package: that brings it, as it is installed.
        entry: where it is.
    """

    name: str
    package: str
    entry: metadata.EntryPoint

    def load(self) -> Any:
        """Import it.

        Raises:
            ConfigError: it cannot be imported.
        """
        try:
            return self.entry.load()
        except ThinwireError as error:
            raise ConfigError(f"the installed package {self.package} was refused: {error}") from error
        except Exception as error:
            raise ConfigError(
                f"the installed package {self.package} says that {self.entry.group} {self.name!r} is in "
                f"{self.entry.value}, which cannot be imported: {type(error).__name__}: {error}. Correct or uninstall "
                "it"
            ) from error


def import_package(name: str, user: str, install: str = "") -> Any:
    """A package that is needed for something alone, and so is not a dependency of thinwire.

    Args:
        name: of the module.
        user: what needs it, for the message.
        install: what pip is to be given, if that is not the name.

    Raises:
        ConfigError: it is not installed, or lacks something itself.

    Example:
        >>> import_package("no_such_package", "a wish")
        Traceback (most recent call last):
        ...
        thinwire.errors.ConfigError: a wish needs no_such_package, which is not installed (No module named ...
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f'{user} needs {name}, which is not installed ({error}); run: pip install "{install or name}"'
        ) from error


def installed(group: Group) -> Mapping[str, Plugin]:
    """What the installed packages bring of a kind, by name; nothing is imported.

    Of two of one name the first that Python finds is taken, and a UserWarning says so. Packages are looked for once,
    and again where ``sys.path`` has changed.

    Example:
        >>> "thinwire" in installed("thinwire.tasks")
        False
    """
    return _installed(group, tuple(sys.path))


@functools.lru_cache(maxsize=16)
def _installed(group: Group, paths: tuple[str, ...]) -> Mapping[str, Plugin]:
    """All metadata of all packages are read for it."""
    found: dict[str, Plugin] = {}
    for entry in metadata.entry_points(group=group):
        package = entry.dist.name if entry.dist else entry.module
        first = found.setdefault(entry.name, Plugin(entry.name, package, entry))
        if (first.package, first.entry.value) != (package, entry.value):
            warnings.warn(
                f"{group} {entry.name!r} of {package} is left out: {first.package} brings one of that name",
                stacklevel=3,
            )
    return found


@functools.cache
def load_parts() -> None:
    """Import the modules that register compressors and the like, once; of one that cannot be a UserWarning."""
    for plugin in installed("thinwire.parts").values():
        try:
            plugin.load()
        except ConfigError as error:
            warnings.warn(f"{error}; what it brings is left out", stacklevel=2)
