"""Payloads to messages and back: the kind byte, and what the kind has after it."""

from typing import NoReturn

import torch
from torch import Tensor

from thinwire.arrays import CPU, array_of
from thinwire.errors import ConfigError, WireError
from thinwire.kernels.crc32c import crc32c_array
from thinwire.payloads.base import Payload
from thinwire.payloads.transfer import to_device, to_host
from thinwire.wire.frame import (
    CHECKSUM_NUM_BYTES,
    FRAME_NUM_BYTES,
    check_is_bytes,
    declared_checksum,
    frame,
    read_beginning,
)
from thinwire.wire.kind import Coded, Pieces, bytes_of
from thinwire.wire.kinds import BY_NUMBER, NAMES, kind_of
from thinwire.wire.reader import MAX_NUMEL, Reader

MAX_DEPTH = 8
"""Bodies inside each other, the outermost one counted."""


def encode(payload: Payload) -> Tensor:
    """The message for a payload: uint8 ``[encoded_num_bytes(payload)]`` on the CPU.

    The format is specified in ``FORMAT.md`` beside this file. The same payload gives the same bytes
    everywhere. Of one on another device all tensors are copied to the host first, for which is waited once.

    Raises:
        ConfigError: a payload of a kind that has no code, or whose parts contradict each other.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
        >>> encode(Dense(torch.tensor([1.0]))).numpy().tobytes().hex()
        '7457010100010000803fcce93981'
    """
    _check_numel(payload)
    return frame(_pieces(to_host(payload), 1))


def encoded_num_bytes(payload: Payload) -> int:
    """``len(encode(payload))``, without building the message.

    Raises:
        ConfigError: as :func:`encode`.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
        >>> encoded_num_bytes(Dense(torch.zeros(10)))
        50
    """
    _check_numel(payload)
    return FRAME_NUM_BYTES + _num_bytes(payload, 1, is_most=False)


def max_num_bytes(payload: Payload) -> int:
    """The most bytes that ``encode`` can take for a payload of this shape, whatever its numbers are.

    A receiver that knows the shape can have the memory ready, and one collective of fixed size suffices. Only
    lengths, dtypes and the fields that are not tensors are looked at, so the tensors may be on torch's ``meta``
    device: a shape without data.

    Args:
        payload: of any kind that has a code. A sparse one stands for all with as many indices, one with a table for
            all with a table of as many numbers; cuts are taken as they are.

    Raises:
        ConfigError: as :func:`encode`.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense, Sparse
        >>> some = torch.empty(10, dtype=torch.int64, device="meta")
        >>> max_num_bytes(Sparse(1000, some, Dense(torch.empty(10, device="meta"))))
        67
    """
    return FRAME_NUM_BYTES + _num_bytes(payload, 1, is_most=True)


def decode(
    message: Tensor,
    *,
    max_numel: int | None = None,
    kinds: frozenset[int] | None = None,
    device: torch.device | str = CPU,
) -> Payload:
    """The payload that :func:`encode` was given, bit for bit.

    What a message declares is compared with its length before memory is taken, so a damaged or hostile
    message costs at most a bounded multiple of its own length. A few bytes may stand for a long vector: memory and time
    in proportion to its ``numel``, which ``max_numel`` bounds, are taken by ``to_dense`` and ``add_to``, not here.

    Args:
        message: uint8 ``[n]`` on the CPU. The payload's tensors may be views of it, which makes dense codes
            free to decode: do not write to the message as long as the payload is used.
        max_numel: longest vector to accept; ``2**48`` if not given.
        kinds: numbers of the kinds of payloads to accept, inside others too; :func:`kinds_in` has those of an outline.
            All if not given.
        device: where the payload's tensors shall lie. What was sent is copied there, never the vector.

    Raises:
        ConfigError: no tensor.
        WireError: anything but one whole valid message.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
        >>> decode(encode(Dense(torch.tensor([1.0, -2.0])))).to_dense().tolist()
        [1.0, -2.0]
    """
    check_is_bytes(message)
    if message.numel() < FRAME_NUM_BYTES:
        raise WireError(f"a message has at least {FRAME_NUM_BYTES} bytes, got {message.numel()}")
    data = array_of(message)
    checked = data[:-CHECKSUM_NUM_BYTES]
    reader = Reader(checked, read_body, MAX_NUMEL if max_numel is None else min(max_numel, MAX_NUMEL), kinds)
    read_beginning(reader)
    declared, actual = declared_checksum(data), crc32c_array(checked)
    if declared != actual:
        raise WireError(f"the message was damaged: its checksum is {actual:08x}, it declares {declared:08x}")
    payload = read_body(reader)
    reader.check_end(payload.numel, message.numel())
    return payload if device == CPU else to_device(payload, torch.device(device))


def read_body(reader: Reader) -> Payload:
    """The next body: a kind and what it has.

    Raises:
        WireError: none that is valid and accepted.
    """
    reader.depth += 1
    if reader.depth > MAX_DEPTH:
        raise WireError(f"payloads are nested more than {MAX_DEPTH} deep")
    number = reader.byte("kind", NAMES)
    kind = BY_NUMBER.get(number)
    if kind is None:
        raise WireError(f"payload kind {number} is unknown; 1 to {len(BY_NUMBER)} are known")
    if reader.kinds is not None and number not in reader.kinds:
        expected = ", ".join(f"{number} ({NAMES[number]})" for number in sorted(reader.kinds))
        raise WireError(
            f"a payload of kind {number} ({kind.name}) came where {expected} are expected; all workers "
            "must train the same model with the same method"
        )
    payload: Payload = kind.read(reader)
    reader.depth -= 1
    if reader.depth:
        reader.num_operations += payload.numel
    return payload


def _pieces(payload: Payload, depth: int) -> Pieces:
    if depth > MAX_DEPTH:
        _refuse_depth()
    kind = kind_of(payload)
    pieces: Pieces = [bytes([kind.number])]
    for part in kind.parts(payload):
        if isinstance(part, bytes):
            pieces.append(part)
        elif isinstance(part, Coded):
            pieces += part.pieces()
        elif isinstance(part, Tensor):  # after the others: a tensor's type takes long to say no
            pieces.append(bytes_of(part))
        else:
            pieces += _pieces(part, depth + 1)
    return pieces


def _num_bytes(payload: Payload, depth: int, *, is_most: bool) -> int:
    if depth > MAX_DEPTH:
        _refuse_depth()
    num_bytes = 1
    for part in kind_of(payload).parts(payload):
        if isinstance(part, bytes):
            num_bytes += len(part)
        elif isinstance(part, Coded):
            num_bytes += part.max_num_bytes() if is_most else part.num_bytes()
        elif isinstance(part, Tensor):
            num_bytes += part.nbytes
        else:
            num_bytes += _num_bytes(part, depth + 1, is_most=is_most)
    return num_bytes


def _refuse_depth() -> NoReturn:
    raise ConfigError(f"payloads are nested more than {MAX_DEPTH} deep")


def _check_numel(payload: Payload) -> None:
    kind_of(payload)  # refuses what has no length before it is asked for it
    if payload.numel > MAX_NUMEL:
        raise ConfigError(f"a vector of {payload.numel} entries was given; a message holds at most 2**48")
