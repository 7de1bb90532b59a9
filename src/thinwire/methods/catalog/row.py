"""One line of the catalog."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from thinwire.methods.base import Method
from thinwire.methods.options import Option, options_of


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One line of the catalog.

    Args:
        name: what the user types.
        paper: who published it.
        summary: what a worker sends, in one sentence.
        differs_from_paper: where this method differs from the paper, or empty.
        build: the product of parts, a function of keyword options.
    """

    name: str
    paper: str
    summary: str
    differs_from_paper: str
    build: Callable[..., Method]

    @property
    def options(self) -> dict[str, Option]:
        """The options that a method string may set."""
        return options_of(self.build)

    def to_json(self) -> dict[str, Any]:
        """All that it says, in plain values."""
        return {
            "name": self.name,
            "summary": self.summary,
            "paper": self.paper,
            "differs_from_paper": self.differs_from_paper or None,
            "options": [option.to_json() for option in self.options.values()],
        }


def entry(
    *, name: str, paper: str, summary: str, differs_from_paper: str = ""
) -> Callable[[Callable[..., Method]], CatalogEntry]:
    """Decorator: the line of the catalog that a function of keyword options builds; see :class:`CatalogEntry`."""
    return lambda build: CatalogEntry(name, paper, summary, differs_from_paper, build)
