"""What installed packages bring to thinwire, found by their entry points and imported when it is asked for."""

import functools
import warnings
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


def installed(group: Group) -> dict[str, Plugin]:
    """What the installed packages bring of a kind, by name; nothing is imported.

    Of two of one name the first that Python finds is taken, and a UserWarning says so.

    Example:
        >>> "thinwire" in installed("thinwire.tasks")
        False
    """
    found: dict[str, Plugin] = {}
    for entry in metadata.entry_points(group=group):
        package = entry.dist.name if entry.dist else entry.module
        first = found.setdefault(entry.name, Plugin(entry.name, package, entry))
        if (first.package, first.entry.value) != (package, entry.value):
            warnings.warn(
                f"{group} {entry.name!r} of {package} is left out: {first.package} brings one of that name",
                stacklevel=2,
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
