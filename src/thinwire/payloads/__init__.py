"""What a message means: dense, sparse, levels, signs."""

from thinwire.payloads.base import Payload
from thinwire.payloads.dense import Dense
from thinwire.payloads.levels import Levels
from thinwire.payloads.signs import Signs
from thinwire.payloads.sparse import Sparse

__all__ = ["Dense", "Levels", "Payload", "Signs", "Sparse"]
