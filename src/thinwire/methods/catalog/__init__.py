"""The literature as a table: each row is a name, its options, and a product of parts."""

from thinwire.config import check_is, suggest
from thinwire.errors import ConfigError
from thinwire.methods.base import Method
from thinwire.methods.catalog import asynchronous, averaging, decentralised, gradients, models
from thinwire.methods.catalog.row import CatalogEntry
from thinwire.methods.options import read_options

__all__ = ["CATALOG", "CatalogEntry", "find_row", "parse_method"]

CATALOG: tuple[CatalogEntry, ...] = (
    *averaging.ROWS,
    *gradients.ROWS,
    *models.ROWS,
    *decentralised.ROWS,
    *asynchronous.ROWS,
)


def find_row(name: str) -> CatalogEntry:
    """The row of that name.

    Raises:
        ConfigError: there is none.

    Example:
        >>> find_row("topk").options["density"].name
        'density'
    """
    rows = {row.name: row for row in CATALOG}
    if name.strip() not in rows:
        raise ConfigError(f"unknown method {name!r}{suggest(name, list(rows))}. See: thinwire methods")
    return rows[name.strip()]


def parse_method(text: str) -> Method:
    """A method from ``name`` or ``name:option=value,...``, such as ``qsparse:density=1%,levels=15,every=8``.

    Raises:
        ConfigError: an unknown name or option, a value that cannot be read, or parts that do not fit together.

    Example:
        >>> parse_method("local-sgd:every=4").schedule
        Every(steps=4)
    """
    check_is(text, str, "a method", "a string such as topk:density=1%")
    name, _, rest = text.partition(":")
    row = find_row(name)
    options = read_options(rest, row.name, row.options)
    try:
        return row.build(**options)
    except ConfigError as error:
        raise ConfigError(f"{text}: {error}") from error
