"""Payloads to messages and back: the kind byte, and who writes and reads what follows it."""

from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.base import Payload
from thinwire.wire.header import FRAME_NUM_BYTES, MAX_NUMEL, Parts, Reader, frame, unframe
from thinwire.wire.kinds import MAX_DEPTH, NAMES, kind_of, numbered


def encode(payload: Payload) -> Tensor:
    """The message for a payload: uint8 ``[encoded_num_bytes(payload)]`` on the CPU.

    The format is specified in ``FORMAT.md`` beside this file. The same payload gives the same bytes
    everywhere.

    Raises:
        ConfigError: a payload of a kind that has no code, or whose parts contradict each other.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
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
        >>> from thinwire.payloads import Dense
        >>> encoded_num_bytes(Dense(torch.zeros(10)))
        50
    """
    _check_numel(payload)
    return FRAME_NUM_BYTES + _body_num_bytes(payload, 1)


def decode(message: Tensor, *, max_numel: int | None = None, kinds: frozenset[int] | None = None) -> Payload:
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

    Raises:
        ConfigError: no tensor.
        WireError: anything but one whole valid message.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
        >>> decode(encode(Dense(torch.tensor([1.0, -2.0])))).to_dense().tolist()
        [1.0, -2.0]
    """
    reader = Reader(unframe(message), MAX_NUMEL if max_numel is None else min(max_numel, MAX_NUMEL), kinds)
    payload = _read_body(reader, 1)
    if reader.num_left:
        raise WireError(f"{reader.num_left} bytes follow the end of the payload")
    if reader.num_operations:
        reader.check_operations(payload.numel, message.numel())
    return payload


def _body_parts(payload: Payload, depth: int) -> Parts:
    _check_depth(depth)
    kind = kind_of(payload)
    return [bytes([kind.number]), *kind.parts(payload, lambda inner: _body_parts(inner, depth + 1))]


def _body_num_bytes(payload: Payload, depth: int) -> int:
    _check_depth(depth)
    return 1 + kind_of(payload).num_bytes(payload, lambda inner: _body_num_bytes(inner, depth + 1))


def _read_body(reader: Reader, depth: int) -> Payload:
    if depth > MAX_DEPTH:
        raise WireError(f"payloads are nested more than {MAX_DEPTH} deep")
    number = reader.byte()
    kind = numbered(number)
    if reader.kinds is not None and number not in reader.kinds:
        raise WireError(
            f"a payload of kind {number} ({kind.name}) came where {_names(reader.kinds)} are expected; all workers "
            "must train the same model with the same method"
        )
    payload = kind.read(reader, lambda inner: _read_body(inner, depth + 1))
    if depth > 1:
        reader.num_operations += payload.numel
    return payload


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ConfigError(f"payloads are nested more than {MAX_DEPTH} deep")


def _names(kinds: frozenset[int]) -> str:
    return ", ".join(f"{number} ({NAMES[number]})" for number in sorted(kinds))


def _check_numel(payload: Payload) -> None:
    kind_of(payload)  # refuses what has no length before it is asked for it
    if payload.numel > MAX_NUMEL:
        raise ConfigError(f"a vector of {payload.numel} entries was given; a message holds at most 2**48")
