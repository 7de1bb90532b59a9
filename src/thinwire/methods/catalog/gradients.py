"""Compressed gradients: unbiased quantizers and sparsifiers, signs, momentum correction, low rank."""

from thinwire.methods.catalog.row import Row

ROWS: tuple[Row, ...] = ()
