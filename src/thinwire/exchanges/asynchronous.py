"""Each worker talks to a server when it likes; nobody waits for anybody else."""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import CPU, zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError, ProtocolError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.reading import MessageReader
from thinwire.exchanges.recompression import max_exact_num_bytes
from thinwire.kernels.flat.finite import is_finite
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.payloads import Dense, Payload
from thinwire.steps import Steps, as_it_is, receive, send
from thinwire.wire import encode


class Control(IntEnum):
    """The first byte of what the server answers."""

    GO_ON = 0
    PAUSE = 1
    """Stop after this exchange, until the program is started again."""
    STOP = 2
    """Some worker's numbers are not finite; what follows is the entry that was not."""


@register
@dataclass(frozen=True, slots=True)
class AsynchronousServer:
    """A message to a server that takes part as one more process, and its model back, on each worker's own clock.

    Up: the worker's message. Down: a byte, and the server's model in f32. Needs an update with a server's side
    (:class:`thinwire.methods.ServerUpdate`).

    Args:
        max_staleness: a worker that is more exchanges than this ahead of the slowest one waits for its answer
            (bounded staleness); None: never.

    Raises:
        ConfigError: a negative bound.
    """

    max_staleness: int | None = None

    needs_linear: ClassVar[bool] = False
    """The server decodes every message."""

    workers_agree: ClassVar[bool] = False
    """Each worker gets the model of another moment."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.max_staleness is not None and self.max_staleness < 0:
            raise ConfigError(f"a staleness of at most {self.max_staleness} was asked for; it must be 0 or more")

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Whether the server told this worker to pause."""
        return {"paused": zeros(1, ctx.device)}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """One message up, one model down: ``aggregate.mean`` is the model."""
        sent = sender.compress(x, ctx.key, ctx.segments)
        message = encode(sent)
        yield from send(ctx.size, message)
        answer = yield from receive(ctx.size, as_it_is, max_answer_num_bytes(ctx.segments.numel))
        control, payload = read_answer(answer, ctx.reader)
        model = payload.values if isinstance(payload, Dense) else payload.to_dense()
        paused = zeros(1, ctx.device).fill_(control is Control.PAUSE)
        finite = control is not Control.STOP and is_finite(model)
        return Aggregate(model, finite, message.numel(), sent, ctx.size, {"paused": paused})


def write_answer(control: Control, payload: Payload) -> Tensor:
    """What the server sends: a byte, and an encoded payload."""
    return torch.cat([torch.tensor([int(control)], dtype=torch.uint8, device=CPU), encode(payload)])


def read_answer(answer: Tensor, reader: MessageReader) -> tuple[Control, Payload]:
    """What :func:`write_answer` was given.

    Raises:
        ProtocolError: an empty answer, an unknown first byte or a vector of another length.
        WireError: the rest is no message.

    Example:
        >>> control, payload = read_answer(write_answer(Control.PAUSE, Dense(torch.ones(2))), MessageReader(2))
        >>> control.name, payload.to_dense().tolist()
        ('PAUSE', [1.0, 1.0])
    """
    if answer.numel() == 0 or int(answer[0]) not in set(Control):
        raise ProtocolError("the server's answer does not begin with a byte from 0 to 2; is it of the same version?")
    payload = reader.part(answer[1:], "the server's model")
    return Control(int(answer[0])), payload


def max_answer_num_bytes(numel: int) -> int:
    """The longest answer for a model of ``numel`` parameters."""
    return 1 + max_exact_num_bytes(numel)
