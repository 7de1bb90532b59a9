"""Infrequent averaging of models: local steps, elastic and outer optimizers."""

from thinwire.methods.catalog.row import Row

ROWS: tuple[Row, ...] = ()
