"""The kinds of payloads that have a code: which number each has."""

from typing import Any

from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.payloads.base import Payload
from thinwire.wire.codebook import CODEBOOK
from thinwire.wire.concat import CONCAT
from thinwire.wire.constant import CONSTANT
from thinwire.wire.dct import DCT_KIND
from thinwire.wire.dense import DENSE
from thinwire.wire.grid import GRID
from thinwire.wire.kind import Coded, Kind
from thinwire.wire.levels import LEVELS
from thinwire.wire.low_rank import LOW_RANK
from thinwire.wire.powers_of_two import POWERS_OF_TWO
from thinwire.wire.rotated import ROTATED
from thinwire.wire.seeded_sparse import SEEDED_SPARSE
from thinwire.wire.signs import SIGNS
from thinwire.wire.sparse import SPARSE
from thinwire.wire.sum import SUM

_KINDS: tuple[Kind[Any], ...] = (
    *(DENSE, SPARSE, LEVELS, SIGNS, GRID, CODEBOOK, POWERS_OF_TWO),
    *(ROTATED, DCT_KIND, SEEDED_SPARSE, CONSTANT, SUM, LOW_RANK, CONCAT),
)
_BY_TYPE = {kind.payload: kind for kind in _KINDS}
BY_NUMBER = {kind.number: kind for kind in _KINDS}
NAMES = {kind.number: kind.name for kind in _KINDS}
"""What each number means, for people."""


def kind_of(payload: Payload) -> Kind[Any]:
    """The kind that a payload is written as.

    Raises:
        ConfigError: there is none.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
        >>> kind_of(Dense(torch.zeros(1))).number
        1
    """
    kind = _BY_TYPE.get(type(payload))
    if kind is None:
        raise ConfigError(f"format version 1 has no code for a payload of type {type(payload).__name__}")
    return kind


def kinds_in(payload: Payload) -> frozenset[int]:
    """The numbers of the kinds that a payload, or an outline of some, is written as, those of bodies inside included.

    Raises:
        ConfigError: a payload of a kind that has no code, or whose parts contradict each other.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense, Sparse
        >>> some = torch.empty(1, dtype=torch.int64, device="meta")
        >>> sorted(kinds_in(Sparse(10, some, Dense(torch.empty(1, dtype=torch.float32, device="meta")))))
        [1, 2]
    """
    kind = kind_of(payload)
    inside = [part for part in kind.parts(payload) if not isinstance(part, bytes | Tensor | Coded)]
    return frozenset((kind.number,)).union(*map(kinds_in, inside))
