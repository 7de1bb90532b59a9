"""One line of the catalog."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from thinwire.errors import ConfigError
from thinwire.memory import ErrorFeedback, MomentumCorrection, ResidualDtype
from thinwire.methods.base import Method
from thinwire.methods.options import Option, options_of

_RESIDUAL_DTYPE = Option("residual_dtype", ResidualDtype, "f32")
"""An option of every row whose memory is a residual."""


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
        """The options that a method string may set: the row's, and ``residual_dtype`` if it keeps a residual."""
        options = options_of(self.build)
        has_defaults = all(option.default is not inspect.Parameter.empty for option in options.values())
        if has_defaults and isinstance(self.build().memory, ErrorFeedback | MomentumCorrection):
            options.setdefault(_RESIDUAL_DTYPE.name, _RESIDUAL_DTYPE)
        return options

    def make(self, options: Mapping[str, Any]) -> Method:
        """The method with values for some of :attr:`options`.

        Raises:
            ConfigError: values that do not fit together.
        """
        own = options_of(self.build)
        method = self.build(**{name: value for name, value in options.items() if name in own})
        for name in options.keys() - own.keys():
            method = with_residual_dtype(method, options[name])
        return method

    def to_json(self) -> dict[str, Any]:
        """All that it says, in plain values."""
        return {
            "name": self.name,
            "summary": self.summary,
            "paper": self.paper,
            "differs_from_paper": self.differs_from_paper or None,
            "options": [option.to_json() for option in self.options.values()],
        }


def with_residual_dtype(method: Method, residual_dtype: ResidualDtype) -> Method:
    """The method with its residual kept in that format between exchanges.

    Raises:
        ConfigError: it keeps no residual.

    Example:
        >>> from thinwire.methods import parse_method
        >>> with_residual_dtype(parse_method("signtopk"), "bf16") == parse_method("signtopk:residual_dtype=bf16")
        True
    """
    memory = method.memory
    if not isinstance(memory, ErrorFeedback | MomentumCorrection):
        raise ConfigError(
            f"residual_dtype={residual_dtype} has no effect with memory={memory}, which keeps no residual"
        )
    return replace(method, memory=replace(memory, residual_dtype=residual_dtype))


def entry(
    *, name: str, paper: str, summary: str, differs_from_paper: str = ""
) -> Callable[[Callable[..., Method]], CatalogEntry]:
    """Decorator: the line of the catalog that a function of keyword options builds; see :class:`CatalogEntry`."""
    return lambda build: CatalogEntry(name, paper, summary, differs_from_paper, build)
