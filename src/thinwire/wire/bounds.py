"""How long a message can become, said before there is one."""

from dataclasses import replace

from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import num_packed_bytes
from thinwire.payloads.base import Payload
from thinwire.payloads.codebook import Codebook
from thinwire.payloads.grid import Grid
from thinwire.payloads.levels import Levels
from thinwire.payloads.sparse import Sparse
from thinwire.wire.codebook import max_codebook_num_bytes
from thinwire.wire.grid import max_grid_num_bytes
from thinwire.wire.header import FRAME_NUM_BYTES, varint_num_bytes
from thinwire.wire.indices import max_indices_num_bytes
from thinwire.wire.kinds import kind_of
from thinwire.wire.levels import levels_num_bytes


def max_num_bytes(payload: Payload) -> int:
    """The most bytes that ``encode`` can take for a payload of this shape, whatever its numbers are.

    A receiver that knows the shape can have the memory ready, and one collective of fixed size suffices. Only
    lengths, dtypes and the fields that are not tensors are looked at, so the tensors may be on torch's ``meta``
    device: a shape without data.

    Args:
        payload: of any kind that has a code. A sparse one stands for all with as many indices, one with a table for
            all with a table of as many numbers; cuts are taken as they are.

    Raises:
        ConfigError: a payload of a kind that has no code, or whose parts contradict each other.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
        >>> some = torch.empty(10, dtype=torch.int64, device="meta")
        >>> max_num_bytes(Sparse(1000, some, Dense(torch.empty(10, device="meta"))))
        67
    """
    return FRAME_NUM_BYTES + _max_body_num_bytes(payload)


def _max_body_num_bytes(payload: Payload) -> int:
    match payload:
        case Sparse():
            count = payload.indices.numel()
            if payload.values.numel != count:
                raise ConfigError(f"{count} indices and {payload.values.numel} values were given")
            if count > payload.numel:
                raise ConfigError(f"{count} indices were given for a vector of {payload.numel} entries")
            indices = max_indices_num_bytes(count, payload.numel)
            return 1 + varint_num_bytes(payload.numel) + _max_body_num_bytes(payload.values) + indices
        case Levels():
            return 1 + _max_levels_num_bytes(payload)
        case Grid():
            return 1 + max_grid_num_bytes(payload)
        case Codebook():
            return 1 + max_codebook_num_bytes(payload)
        case _:
            # Of all others the length depends on the shape alone.
            return 1 + kind_of(payload).num_bytes(payload, _max_body_num_bytes)


def _max_levels_num_bytes(payload: Levels) -> int:
    packed = levels_num_bytes(replace(payload, coding="packed"))
    if payload.coding == "packed":
        return packed
    if payload.coding == "entropy":
        # One byte says that nothing shorter was found.
        return packed + 1
    longest = _omega_num_bits(payload.num_levels + 1) + 1
    return packed - payload.codes.numel() + num_packed_bytes(payload.numel, longest)


def _omega_num_bits(number: int) -> int:
    """Length of Elias' omega code of a number from 1 on; it does not fall as the number grows."""
    num_bits = 1
    while number > 1:
        num_bits += number.bit_length()
        number = number.bit_length() - 1
    return num_bits
