"""What a place for objects must be able to do."""

import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from thinwire.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*(/[A-Za-z0-9_][A-Za-z0-9_.=-]*)*")


@runtime_checkable
class Store(Protocol):
    """Objects of bytes under names such as ``rounds/000012/rank-3``; what is there is there in full.

    Every method raises :class:`thinwire.errors.StoreError` where the place does not answer or refuses, and
    :class:`thinwire.errors.ConfigError` for a name that :func:`check_name` refuses.
    """

    def put(self, name: str, contents: bytes | memoryview) -> None:
        """Write an object, in place of one that is there."""
        ...

    def create(self, name: str, contents: bytes | memoryview) -> bool:
        """Write an object unless there is one; of several callers at once exactly one is told that it did."""
        ...

    def get(self, name: str, max_num_bytes: int) -> bytes | None:
        """The whole object; None if there is none. A longer one than allowed is refused before it is read."""
        ...

    def names(self, under: str) -> Sequence[str]:
        """Names of all objects below another name, ascending; below the empty one is everything."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; it does not matter if it is gone already."""
        ...


def check_name(name: str) -> str:
    """The name, if every store can have it: parts of letters, digits and ``_ . = -``, joined by ``/``.

    Raises:
        ConfigError: it has anything else, or a part begins with a dot or a dash.

    Example:
        >>> check_name("rounds/000012/rank-3")
        'rounds/000012/rank-3'
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"the object name {name!r} was given; names are parts of letters, digits and _ . = - that begin with a "
            "letter, a digit or _, joined by /"
        )
    return name
