"""Payloads to messages and back: the kind byte, and which file knows which kind."""

from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.base import Payload
from thinwire.payloads.dense import Dense
from thinwire.payloads.levels import Levels
from thinwire.payloads.signs import Signs
from thinwire.payloads.sparse import Sparse
from thinwire.wire.dense import dense_num_bytes, dense_parts, read_dense
from thinwire.wire.header import FRAME_NUM_BYTES, MAX_NUMEL, Bytes, Reader, frame, unframe
from thinwire.wire.levels import levels_num_bytes, levels_parts, read_levels
from thinwire.wire.signs import read_signs, signs_num_bytes, signs_parts
from thinwire.wire.sparse import read_sparse, sparse_num_bytes, sparse_parts

_DENSE, _SPARSE, _LEVELS, _SIGNS = 1, 2, 3, 4
_MAX_DEPTH = 4


def encode(payload: Payload) -> Tensor:
    """The message for a payload: uint8 ``[encoded_num_bytes(payload)]`` on the CPU.

    The format is specified in ``FORMAT.md`` beside this file. The same payload gives the same bytes
    everywhere.

    Raises:
        ConfigError: a payload of a kind that has no code, or whose parts contradict each other.

    Example:
        >>> import torch
        >>> encode(Dense(torch.tensor([1.0]))).numpy().tobytes().hex()
        '7457010100010000803fcce93981'
    """
    _check_numel(payload)
    return frame(_body_parts(payload, 1))


def encoded_num_bytes(payload: Payload) -> int:
    """``len(encode(payload))``, without building the message.

    Raises:
        ConfigError: as :func:`encode`.

    Example:
        >>> import torch
        >>> encoded_num_bytes(Dense(torch.zeros(10)))
        50
    """
    _check_numel(payload)
    return FRAME_NUM_BYTES + _body_num_bytes(payload, 1)


def decode(message: Tensor, *, max_numel: int | None = None) -> Payload:
    """The payload that :func:`encode` was given, bit for bit.

    What a message declares is compared with its length before memory is taken, so a damaged or hostile
    message costs at most a bounded multiple of its own length; a sparse payload never allocates its ``numel``.

    Args:
        message: uint8 ``[n]`` on the CPU; it is copied from, never kept.
        max_numel: longest vector to accept; ``2**48`` if not given.

    Raises:
        WireError: anything but one whole valid message.

    Example:
        >>> import torch
        >>> decode(encode(Dense(torch.tensor([1.0, -2.0])))).to_dense().tolist()
        [1.0, -2.0]
    """
    reader = Reader(unframe(message), MAX_NUMEL if max_numel is None else min(max_numel, MAX_NUMEL))
    payload = _read_body(reader, 1)
    if reader.num_left:
        raise WireError(f"{reader.num_left} bytes follow the end of the payload")
    return payload


def _body_parts(payload: Payload, depth: int) -> list[bytes | Bytes]:
    _check_depth(depth)
    match payload:
        case Dense():
            return [bytes([_DENSE]), *dense_parts(payload)]
        case Sparse():
            return [bytes([_SPARSE]), *sparse_parts(payload, _body_parts(payload.values, depth + 1))]
        case Levels():
            return [bytes([_LEVELS]), *levels_parts(payload)]
        case Signs():
            return [bytes([_SIGNS]), *signs_parts(payload)]
        case _:
            raise ConfigError(f"format version 1 has no code for a payload of type {type(payload).__name__}")


def _body_num_bytes(payload: Payload, depth: int) -> int:
    _check_depth(depth)
    match payload:
        case Dense():
            return 1 + dense_num_bytes(payload)
        case Sparse():
            return 1 + sparse_num_bytes(payload, _body_num_bytes(payload.values, depth + 1))
        case Levels():
            return 1 + levels_num_bytes(payload)
        case Signs():
            return 1 + signs_num_bytes(payload)
        case _:
            raise ConfigError(f"format version 1 has no code for a payload of type {type(payload).__name__}")


def _read_body(reader: Reader, depth: int) -> Payload:
    if depth > _MAX_DEPTH:
        raise WireError(f"payloads are nested more than {_MAX_DEPTH} deep")
    kind = reader.byte()
    if kind == _DENSE:
        return read_dense(reader)
    if kind == _SPARSE:
        return read_sparse(reader, lambda values: _read_body(values, depth + 1))
    if kind == _LEVELS:
        return read_levels(reader)
    if kind == _SIGNS:
        return read_signs(reader)
    raise WireError(f"payload kind {kind} is unknown; 1 to 4 are known")


def _check_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ConfigError(f"payloads are nested more than {_MAX_DEPTH} deep")


def _check_numel(payload: Payload) -> None:
    if payload.numel > MAX_NUMEL:
        raise ConfigError(f"a vector of {payload.numel} entries was given; a message holds at most 2**48")
