"""The literature as a table: each row is a name, its options, and a product of parts."""

from thinwire.config import check_is
from thinwire.errors import ConfigError
from thinwire.methods.base import Method
from thinwire.methods.catalog import asynchronous, averaging, decentralised, gradients, models
from thinwire.methods.catalog.row import CatalogEntry
from thinwire.methods.options import read_options
from thinwire.option_strings import split_name

__all__ = ["CATALOG", "CatalogEntry", "find_row", "parse_method"]

CATALOG: tuple[CatalogEntry, ...] = (
    *averaging.ROWS,
    *gradients.ROWS,
    *models.ROWS,
    *decentralised.ROWS,
    *asynchronous.ROWS,
)


def find_row(name: str) -> CatalogEntry:
    """The row of that name, which options may follow.

    Raises:
        ConfigError: there is none.

    Example:
        >>> find_row("topk").options["density"].name
        'density'
    """
    rows = {row.name: row for row in CATALOG}
    return rows[split_name(name, "method", rows, ". See: thinwire methods")[0]]


def parse_method(text: str) -> Method:
    """A method from ``name`` or ``name:option=value,...``, such as ``qsparse:density=1%,levels=15,every=8``.

    Raises:
        ConfigError: an unknown name or option, a value that cannot be read, or parts that do not fit together.

    Example:
        >>> parse_method("local-sgd:every=4").schedule
        Every(steps=4)
    """
    check_is(text, str, "a method", "a string such as topk:density=1%")
    row = find_row(text)
    options = read_options(text.partition(":")[2], row.name, row.options)
    try:
        return row.build(**options)
    except ConfigError as error:
        raise ConfigError(f"{text}: {error}") from error
