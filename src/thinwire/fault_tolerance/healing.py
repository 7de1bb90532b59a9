"""The common state from the participant that leads to those that heal, while all others wait for these."""

import struct

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.distributed.transport import Transport
from thinwire.errors import ProtocolError

PIECE_NUM_BYTES = 1 << 18
"""Of what is sent at a time. With each that has come a participant that heals tells the others that it goes on, so that
they wait for as long as it takes, and notice its end all the same."""

_LENGTH = struct.Struct("<Q")
_GOES_ON, _IS_DONE = (torch.tensor([mark], dtype=torch.uint8, device=CPU) for mark in (0, 1))


def hand_over(
    transport: Transport, leader: int, healing: tuple[int, ...], data: Tensor | None, max_num_bytes: int
) -> Tensor | None:
    """What the leader gives to those that heal; every member of the quorum calls it.

    Args:
        transport: between them.
        leader: who gives.
        healing: who gets it.
        data: what the leader gives; uint8 ``[n]``.
        max_num_bytes: what is announced to be longer is refused before memory is taken for it.

    Returns:
        What was received, for those that heal.

    Raises:
        WorkerError: a member is gone.
        ProtocolError: more was announced than is allowed.
    """
    received = None
    if transport.rank in healing:
        received = _receive(transport, leader, max_num_bytes)
        for other in range(transport.size):
            if other != transport.rank:
                transport.give(other, _IS_DONE)
    elif transport.rank == leader:
        assert data is not None
        _send(transport, healing, data)
    missing = [rank for rank in healing if rank != transport.rank]
    while missing:
        rank, mark = transport.take(missing, 1)
        if mark.numel() == 1 and int(mark) == int(_IS_DONE):
            missing.remove(rank)
    transport.flush()
    return received


def _send(transport: Transport, healing: tuple[int, ...], data: Tensor) -> None:
    length = torch.frombuffer(bytearray(_LENGTH.pack(data.numel())), dtype=torch.uint8)
    for rank in healing:
        transport.give(rank, length)
    for place in range(0, data.numel(), PIECE_NUM_BYTES):
        for rank in healing:
            transport.give(rank, data[place : place + PIECE_NUM_BYTES])


def _receive(transport: Transport, leader: int, max_num_bytes: int) -> Tensor:
    _, head = transport.take([leader], _LENGTH.size)
    if head.numel() != _LENGTH.size:
        raise ProtocolError(f"worker {leader} sent {head.numel()} bytes where a length belongs")
    (num_bytes,) = _LENGTH.unpack(head.numpy().tobytes())
    if num_bytes > max_num_bytes:
        raise ProtocolError(f"worker {leader} announced {num_bytes} bytes of common state, at most {max_num_bytes}")
    data = torch.empty(num_bytes, dtype=torch.uint8, device=CPU)
    place = 0
    while place < num_bytes:
        _, piece = transport.take([leader], min(PIECE_NUM_BYTES, num_bytes - place))
        if not piece.numel():
            raise ProtocolError(f"worker {leader} sent an empty piece of the common state")
        data[place : place + piece.numel()] = piece
        place += piece.numel()
        for other in range(transport.size):
            if other != transport.rank:
                transport.give(other, _GOES_ON)
    return data
