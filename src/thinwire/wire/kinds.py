"""The kinds of payloads that have a code: which number each has, and who writes and reads it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from thinwire.errors import ConfigError, WireError
from thinwire.payloads import (
    DCT,
    Codebook,
    Concat,
    Constant,
    Dense,
    Grid,
    Levels,
    LowRank,
    Payload,
    PowersOfTwo,
    Rotated,
    SeededSparse,
    Signs,
    Sparse,
    Sum,
)
from thinwire.wire.codebook import codebook_num_bytes, codebook_parts, read_codebook
from thinwire.wire.concat import joined_num_bytes, joined_parts, read_joined
from thinwire.wire.constant import constant_num_bytes, constant_parts, read_constant
from thinwire.wire.dct import cosine_num_bytes, cosine_parts, read_cosine
from thinwire.wire.dense import dense_num_bytes, dense_parts, read_dense
from thinwire.wire.grid import grid_num_bytes, grid_parts, read_grid
from thinwire.wire.header import Parts, Reader
from thinwire.wire.levels import levels_num_bytes, levels_parts, read_levels
from thinwire.wire.low_rank import low_rank_num_bytes, low_rank_parts, read_low_rank
from thinwire.wire.powers_of_two import powers_num_bytes, powers_parts, read_powers
from thinwire.wire.rotated import read_rotated, rotated_num_bytes, rotated_parts
from thinwire.wire.seeded_sparse import drawn_num_bytes, drawn_parts, read_drawn
from thinwire.wire.signs import read_signs, signs_num_bytes, signs_parts
from thinwire.wire.sparse import read_sparse, sparse_num_bytes, sparse_parts
from thinwire.wire.sum import read_total, total_num_bytes, total_parts

MAX_DEPTH = 8
"""Bodies inside each other, the outermost one counted."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How payloads of one type are written, after the byte with the number of the kind.

    Each function is given another one, which does the same for a body inside.
    """

    number: int
    name: str
    payload: type[Any]
    parts: Callable[[Any, Callable[[Payload], Parts]], Parts]
    num_bytes: Callable[[Any, Callable[[Payload], int]], int]
    read: Callable[[Reader, Callable[[Reader], Payload]], Payload]


def kind_of(payload: Payload) -> Kind:
    """The kind that a payload is written as.

    Raises:
        ConfigError: there is none.

    Example:
        >>> import torch
        >>> kind_of(Dense(torch.zeros(1))).number
        1
    """
    kind = _BY_TYPE.get(type(payload))
    if kind is None:
        raise ConfigError(f"format version 1 has no code for a payload of type {type(payload).__name__}")
    return kind


def numbered(number: int) -> Kind:
    """The kind with a number.

    Raises:
        WireError: there is none.

    Example:
        >>> numbered(2).name
        'sparse'
    """
    kind = _BY_NUMBER.get(number)
    if kind is None:
        raise WireError(f"payload kind {number} is unknown; 1 to {len(_BY_NUMBER)} are known")
    return kind


def kinds_in(payload: Payload) -> frozenset[int]:
    """The numbers of the kinds that a payload, or an outline of some, is written as, those of bodies inside included.

    Raises:
        ConfigError: a payload of a kind that has no code.

    Example:
        >>> import torch
        >>> some = torch.empty(1, dtype=torch.int64, device="meta")
        >>> sorted(kinds_in(Sparse(10, some, Dense(torch.empty(1, dtype=torch.float32, device="meta")))))
        [1, 2]
    """
    inside: tuple[Payload, ...]
    match payload:
        case Sparse() | SeededSparse():
            inside = (payload.values,)
        case Rotated() | DCT():
            inside = (payload.inner,)
        case Sum() | Concat():
            inside = payload.parts
        case _:
            inside = ()
    return frozenset((kind_of(payload).number,)).union(*map(kinds_in, inside))


def _alone(
    number: int,
    name: str,
    payload: type[Any],
    parts: Callable[[Any], Parts],
    num_bytes: Callable[[Any], int],
    read: Callable[[Reader], Payload],
) -> Kind:
    """A kind without a body inside."""
    return Kind(
        number, name, payload, lambda value, _: parts(value), lambda value, _: num_bytes(value), lambda it, _: read(it)
    )


_KINDS = (
    _alone(1, "dense", Dense, dense_parts, dense_num_bytes, read_dense),
    Kind(2, "sparse", Sparse, sparse_parts, sparse_num_bytes, read_sparse),
    _alone(3, "levels", Levels, levels_parts, levels_num_bytes, read_levels),
    _alone(4, "signs", Signs, signs_parts, signs_num_bytes, read_signs),
    _alone(5, "grid", Grid, grid_parts, grid_num_bytes, read_grid),
    _alone(6, "codebook", Codebook, codebook_parts, codebook_num_bytes, read_codebook),
    _alone(7, "powers", PowersOfTwo, powers_parts, powers_num_bytes, read_powers),
    Kind(8, "rotated", Rotated, rotated_parts, rotated_num_bytes, read_rotated),
    Kind(9, "cosine", DCT, cosine_parts, cosine_num_bytes, read_cosine),
    Kind(10, "drawn", SeededSparse, drawn_parts, drawn_num_bytes, read_drawn),
    _alone(11, "constant", Constant, constant_parts, constant_num_bytes, read_constant),
    Kind(12, "total", Sum, total_parts, total_num_bytes, read_total),
    _alone(13, "low rank", LowRank, low_rank_parts, low_rank_num_bytes, read_low_rank),
    Kind(14, "joined", Concat, joined_parts, joined_num_bytes, read_joined),
)
_BY_TYPE = {kind.payload: kind for kind in _KINDS}
_BY_NUMBER = {kind.number: kind for kind in _KINDS}
NAMES = {kind.number: kind.name for kind in _KINDS}
"""What each number means, for people."""
