"""Kind 13: the length, the columns and the rank, then the two thin matrices."""

import torch

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.low_rank import LowRank
from thinwire.wire.kind import Kind, Parts, varint
from thinwire.wire.reader import Reader


def _parts(payload: LowRank) -> Parts:
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
    return [varint(payload.numel), varint(columns), varint(rank), left, right]


def _read(reader: Reader) -> LowRank:
    numel = reader.numel()
    columns = reader.varint("columns")
    # So the matrix has less than twice as many entries, and both factors are there.
    if not 1 <= columns <= numel:
        raise WireError(f"a matrix of {columns} columns is declared for {numel} entries; it has 1 to {numel}")
    rank = reader.varint("rank")
    if not 1 <= rank <= reader.num_left:
        raise WireError(f"a rank of {rank} is declared; it is at least 1, and {reader.num_left} bytes are left")
    rows = -(-numel // columns)
    left = reader.tensor("left", rows * rank).view(rows, rank)
    right = reader.tensor("right", columns * rank).view(columns, rank)
    return LowRank(left, right, numel)


LOW_RANK = Kind(13, "low rank", LowRank, _parts, _read)
