"""Low-rank payloads: the length, the columns and the rank, then the two thin matrices."""

import torch
from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.low_rank import LowRank
from thinwire.wire.header import Parts, Reader, bytes_of, varint, varint_num_bytes


def low_rank_parts(payload: LowRank) -> Parts:
    """What follows the kind byte."""
    _, columns, rank = _shape(payload)
    matrices = [bytes_of(matrix.reshape(-1)) for matrix in (payload.left, payload.right)]
    return [varint(payload.numel), varint(columns), varint(rank), *matrices]


def low_rank_num_bytes(payload: LowRank) -> int:
    """Length of :func:`low_rank_parts`, without making them."""
    rows, columns, rank = _shape(payload)
    integers = varint_num_bytes(payload.numel) + varint_num_bytes(columns) + varint_num_bytes(rank)
    return integers + 4 * rank * (rows + columns)


def read_low_rank(reader: Reader) -> LowRank:
    """Read what :func:`low_rank_parts` wrote."""
    numel = reader.numel()
    columns = read_columns(reader, numel)
    rank = read_rank(reader)
    rows = -(-numel // columns)
    return LowRank(_read_matrix(reader, rows, rank), _read_matrix(reader, columns, rank), numel)


def read_columns(reader: Reader, numel: int) -> int:
    """1 to the number of entries: so the matrix has less than twice as many, and both factors are there."""
    columns = reader.varint()
    if not 1 <= columns <= numel:
        raise WireError(f"a matrix of {columns} columns is declared for {numel} entries; it has 1 to {numel}")
    return columns


def read_rank(reader: Reader) -> int:
    """At least 1, and no more than there are bytes for."""
    rank = reader.varint()
    if not 1 <= rank <= reader.num_left:
        raise WireError(f"a rank of {rank} is declared; it is at least 1, and {reader.num_left} bytes are left")
    return rank


def _read_matrix(reader: Reader, rows: int, rank: int) -> Tensor:
    return reader.tensor(torch.float32, rows * rank).view(rows, rank)


def _shape(payload: LowRank) -> tuple[int, int, int]:
    left, right = payload.left, payload.right
    if left.dtype != torch.float32 or right.dtype != torch.float32 or left.dim() != 2 or right.dim() != 2:
        raise ConfigError(f"two matrices of float32 are needed, got {left.dtype} and {right.dtype}")
    (rows, rank), (columns, other) = left.shape, right.shape
    if rank != other or rank < 1:
        raise ConfigError(f"matrices of rank {rank} and {other} were given; both are of one rank, at least 1")
    if not 1 <= columns <= payload.numel or rows != -(-payload.numel // columns):
        raise ConfigError(
            f"{rows} rows and {columns} columns were given for {payload.numel} entries; "
            "there are at most as many columns as entries, and as many rows as are needed"
        )
    return rows, columns, rank
