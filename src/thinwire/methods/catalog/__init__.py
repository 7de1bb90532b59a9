"""The literature as a table: each row is a name, its options, and a product of parts."""

from thinwire.config import suggest
from thinwire.errors import ConfigError
from thinwire.methods.base import Method
from thinwire.methods.catalog import asynchronous, averaging, decentralised, gradients, models
from thinwire.methods.catalog.row import Row
from thinwire.methods.options import read_options

__all__ = ["CATALOG", "Row", "parse_method"]

CATALOG: tuple[Row, ...] = (*averaging.ROWS, *gradients.ROWS, *models.ROWS, *decentralised.ROWS, *asynchronous.ROWS)


def parse_method(text: str) -> Method:
    """A method from ``name`` or ``name:option=value,...``, such as ``qsparse:density=1%,levels=15,every=8``.

    Raises:
        ConfigError: an unknown name or option, a value that cannot be read, or parts that do not fit together.

    Example:
        >>> parse_method("local-sgd:every=4").schedule
        Every(steps=4)
    """
    name, _, rest = text.partition(":")
    rows = {row.name: row for row in CATALOG}
    if name.strip() not in rows:
        raise ConfigError(f"unknown method {name!r}{suggest(name, list(rows))}. See: thinwire methods")
    row = rows[name.strip()]
    options = read_options(rest, row.name, row.options)
    try:
        return row.build(**options)
    except ConfigError as error:
        raise ConfigError(f"{text}: {error}") from error
