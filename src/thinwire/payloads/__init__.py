"""What a message means: vectors of numbers, kept entries, small integers, signs, and what is made of these."""

from thinwire.payloads.base import Payload
from thinwire.payloads.codebook import Codebook
from thinwire.payloads.concat import Concat
from thinwire.payloads.constant import Constant
from thinwire.payloads.dct import DCT
from thinwire.payloads.dense import Dense
from thinwire.payloads.grid import Grid
from thinwire.payloads.levels import Levels
from thinwire.payloads.low_rank import LowRank
from thinwire.payloads.powers_of_two import PowersOfTwo
from thinwire.payloads.rotated import Rotated
from thinwire.payloads.seeded_sparse import SeededSparse
from thinwire.payloads.signs import Signs
from thinwire.payloads.sparse import Sparse
from thinwire.payloads.sum import Sum

__all__ = [
    "DCT",
    "Codebook",
    "Concat",
    "Constant",
    "Dense",
    "Grid",
    "Levels",
    "LowRank",
    "Payload",
    "PowersOfTwo",
    "Rotated",
    "SeededSparse",
    "Signs",
    "Sparse",
    "Sum",
]
