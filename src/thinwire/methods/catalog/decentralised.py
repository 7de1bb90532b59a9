"""Other routes: gossip, trees, shards, servers that compress what they send."""

from thinwire.methods.catalog.row import Row

ROWS: tuple[Row, ...] = ()
