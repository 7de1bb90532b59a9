"""The literature as a table: each row is a name, its options, and a product of parts."""

import warnings

from thinwire.config import check_is
from thinwire.errors import ConfigError
from thinwire.methods.base import Method
from thinwire.methods.catalog import (
    asynchronous,
    averaging,
    decentralised,
    directions,
    estimates,
    gossip,
    gradients,
    low_communication,
    mean_estimation,
    models,
    sums,
    tracking,
)
from thinwire.methods.catalog.row import CatalogEntry, entry, with_residual_dtype
from thinwire.methods.options import read_options
from thinwire.option_strings import split_name
from thinwire.plugins import Plugin, installed

__all__ = ["CATALOG", "CatalogEntry", "entry", "find_row", "installed_rows", "parse_method", "with_residual_dtype"]

CATALOG: tuple[CatalogEntry, ...] = (
    *averaging.ROWS,
    *gradients.ROWS,
    *directions.ROWS,
    *models.ROWS,
    *low_communication.ROWS,
    *decentralised.ROWS,
    *gossip.ROWS,
    *tracking.ROWS,
    *asynchronous.ROWS,
    *estimates.ROWS,
    *sums.ROWS,
    *mean_estimation.ROWS,
)


def find_row(name: str) -> CatalogEntry:
    """The row of that name, which options may follow: of the catalog, or of an installed package.

    A package cannot take a name of the catalog.

    Raises:
        ConfigError: there is none, or a package brings it and cannot be imported.

    Example:
        >>> find_row("topk").options["density"].name
        'density'
    """
    rows = {row.name: row for row in CATALOG}
    plain = name.partition(":")[0].strip()
    if plain in rows:
        return rows[plain]
    plugins = installed("thinwire.methods")
    split_name(name, "method", [*rows, *plugins], ". See: thinwire methods")
    return _row_of(plugins[plain])


def installed_rows() -> list[CatalogEntry]:
    """The rows of installed packages; of one that cannot be imported a UserWarning."""
    found = []
    for name, plugin in installed("thinwire.methods").items():
        try:
            found += [_row_of(plugin)] if name not in {row.name for row in CATALOG} else []
        except ConfigError as error:
            warnings.warn(f"{error}; it is left out", stacklevel=2)
    return found


def _row_of(plugin: Plugin) -> CatalogEntry:
    row = plugin.load()
    if not isinstance(row, CatalogEntry) or row.name != plugin.name:
        what = f"the row of {row.name}" if isinstance(row, CatalogEntry) else f"a {type(row).__name__}"
        raise ConfigError(
            f"the installed package {plugin.package} brings {what} as the method {plugin.name!r}; it must be a row of "
            "that name, made by thinwire.methods.entry"
        )
    return row


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
        return row.make(options)
    except ConfigError as error:
        raise ConfigError(f"{text}: {error}") from error
