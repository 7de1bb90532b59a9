"""What a message means: vectors of numbers, kept entries, small integers, signs, and what is made of these."""

from thinwire.payloads.base import Payload
from thinwire.payloads.codebook import Codebook
from thinwire.payloads.constant import Constant
from thinwire.payloads.cosine import Cosine
from thinwire.payloads.dense import Dense
from thinwire.payloads.drawn import Drawn
from thinwire.payloads.grid import Grid
from thinwire.payloads.joined import Joined
from thinwire.payloads.levels import Levels
from thinwire.payloads.low_rank import LowRank
from thinwire.payloads.powers import Powers
from thinwire.payloads.rotated import Rotated
from thinwire.payloads.signs import Signs
from thinwire.payloads.sparse import Sparse
from thinwire.payloads.total import Total

__all__ = [
    "Codebook",
    "Constant",
    "Cosine",
    "Dense",
    "Drawn",
    "Grid",
    "Joined",
    "Levels",
    "LowRank",
    "Payload",
    "Powers",
    "Rotated",
    "Signs",
    "Sparse",
    "Total",
]
