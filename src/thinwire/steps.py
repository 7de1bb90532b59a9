"""The seven things a program may ask of its driver, and the only bare ``yield`` s that reach one.

An exchange is a generator that *yields* requests and never performs them. The simulator and the transport
run the same generators, which is why what is simulated is what is run. A program must not hold a context
manager across a ``yield``: the mode would leak into the next worker of a simulation. Decorate the generator
function instead (``@torch.no_grad()`` re-enters the mode at every resume).
"""

from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from thinwire.arrays import divisor_of, to_device
from thinwire.errors import ProtocolError
from thinwire.staging import stage

T = TypeVar("T")

HALVES = (torch.bfloat16, torch.float16)
"""Formats of 16 bits: numbers are sent in them, and added in f32."""


@dataclass(frozen=True, slots=True, eq=False)
class AllReduce:
    """Every worker gives a tensor of one shape and format; each gets :func:`sum_in_order` of all, over ``divisor``.

    ``in_place`` says that nobody needs the tensor any more, so that the sum may take its memory.
    """

    tensor: Tensor
    divisor: int = 1
    in_place: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class AllGather:
    """Every worker gives a message (uint8 ``[n]``); each gets ``combine(messages in rank order)``.

    A message that is longer than ``max_num_bytes`` is refused before memory is taken for it.
    ``combine`` is pure and the same on every worker. A process calls it once; a simulation calls it once for
    all its workers and hands each the same object, which is therefore read-only.
    """

    message: Tensor
    combine: Callable[[Sequence[Tensor]], Any]
    max_num_bytes: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Send:
    """Hand a message to one worker; does not wait for it to arrive."""

    destination: int
    message: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Receive:
    """Wait for the next message of one worker and get ``read(message)``; a pair's messages stay in order.

    ``read`` is pure, and the same on every worker that gets the same message. A process calls it for each
    message; a simulation calls it once for a message that was sent to many and hands each the same object,
    which is therefore read-only. A message that is longer than ``max_num_bytes`` is refused before memory is taken
    for it.
    """

    source: int
    read: Callable[[Tensor], Any]
    max_num_bytes: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ReceiveAny:
    """Wait for whoever's message comes first and get ``(source, read(message))``: what a server does.

    Which one is first depends on the clock: a simulation gives the same answer every time, processes need not.
    ``sources`` are those that will still send, so that the end of one of them is an error; ``None``: anyone may.
    """

    read: Callable[[Tensor], Any]
    max_num_bytes: int | None = None
    sources: Collection[int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Tell:
    """Every worker says something (uint8 ``[n]``); each gets what all have said, in rank order.

    For control, outside of all counting: it is no part of a message, and takes no virtual time.
    """

    message: Tensor


@dataclass(frozen=True, slots=True)
class Compute:
    """Let virtual time pass; a real process has already spent it.

    Time ``in_background`` passes while the program goes on; the next time it spends begins when that is over, and so
    does whatever follows the program's end.
    """

    seconds: float
    in_background: bool = False


Op: TypeAlias = AllReduce | AllGather | Send | Receive | ReceiveAny | Tell | Compute
Steps: TypeAlias = Generator[Op, Any, T]


def all_reduce(tensor: Tensor, divisor: int = 1, *, in_place: bool = False) -> Steps[Tensor]:
    """Every worker's tensor summed in rank order, over ``divisor``; shared: read it, do not write to it.

    With ``in_place`` the tensor is handed over, and what it holds afterwards is nobody's.
    """
    total: Tensor = yield AllReduce(tensor, divisor, in_place)
    return total


def sum_in_order(tensors: Sequence[Tensor], divisor: int, out: Tensor) -> None:
    """Write the tensors' sum, entry by entry in rank order, over ``divisor`` to ``out``.

    Numbers of 16 bits are added and divided in f32 and rounded once, however many workers there are.

    Example:
        >>> parts = [torch.tensor([256.0]).bfloat16(), *[torch.tensor([1.0]).bfloat16()] * 8]
        >>> sum_in_order(parts, 1, out := torch.empty(1).bfloat16())
        >>> out.item(), sum(parts).item()
        (264.0, 256.0)
    """
    first, *others = tensors
    if not others and divisor == 1:
        out.copy_(first)
        return
    if out.dtype in HALVES:
        total = first.to(torch.float32)
    elif others:
        total = torch.add(first, others.pop(0), out=out)
    else:
        total = out.copy_(first)
    for each in others:
        total += each
    if divisor != 1:
        total /= divisor_of(total, divisor)
    if total is not out:
        out.copy_(total)


def all_gather(message: Tensor, combine: Callable[[Sequence[Tensor]], T], max_num_bytes: int | None = None) -> Steps[T]:
    """``combine`` of every worker's message in rank order; the result is shared: read it, do not write to it."""
    combined: T = yield AllGather(message, combine, max_num_bytes)
    return combined


def send(destination: int, message: Tensor) -> Steps[None]:
    """Hand ``message`` to the worker ``destination``; it must not be written to afterwards."""
    yield Send(destination, message)


def receive(source: int, read: Callable[[Tensor], T], max_num_bytes: int | None = None) -> Steps[T]:
    """``read`` of the next message from ``source``; the result is shared: read it, do not write to it."""
    result: T = yield Receive(source, read, max_num_bytes)
    return result


def receive_any(
    read: Callable[[Tensor], T], max_num_bytes: int | None = None, sources: Collection[int] | None = None
) -> Steps[tuple[int, T]]:
    """Who sent the next message to arrive, and ``read`` of it."""
    source_and_result: tuple[int, T] = yield ReceiveAny(read, max_num_bytes, sources)
    return source_and_result


def tell(text: str) -> Steps[list[str]]:
    """What every worker says, in rank order; not counted."""
    said: list[Tensor] = yield Tell(bytes_of(text))
    return [text_of(message) for message in said]


def bytes_of(text: str) -> Tensor:
    """Text that is not empty as a message (uint8), for :func:`text_of`.

    Example:
        >>> text_of(bytes_of("für"))
        'für'
    """
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def text_of(message: Tensor) -> str:
    """What :func:`bytes_of` was given."""
    return message.numpy().tobytes().decode()


def as_it_is(message: Tensor) -> Tensor:
    """The message itself, for :func:`receive`."""
    return message


def compute(seconds: float, in_background: bool = False) -> Steps[None]:
    """Spend ``seconds`` of virtual time on computation, see :class:`Compute`."""
    yield Compute(seconds, in_background)


def ask(op: Op) -> Steps[Any]:
    """The answer to any request, for who passes on what another program asks for."""
    answer = yield op
    return answer


def checked(
    steps: Steps[T], is_fit: Callable[[], bool], instead: Callable[[], Steps[T]], *, stays: bool = False
) -> Steps[T]:
    """A program, if what it was given turns out to be fit once its first request is made; else another in its place.

    What is only known when the device has worked is known then at no cost: a message is what the device has made. A
    tensor that is to be summed goes to the host before it is asked, so that this is waited for and nothing else; unless
    it ``stays``, where the driver sums on the device.
    """
    try:
        op, device = _first(steps, stays)
        if not is_fit():
            steps.close()
            steps = instead()
            op, device = _first(steps, stays)
    except StopIteration as stop:
        whole: T = stop.value
        return whole
    try:
        while True:
            reply = yield op
            if device is not None:
                reply, device = to_device(reply, device), None
            try:
                op = steps.send(reply)
            except StopIteration as stop:
                result: T = stop.value
                return result
    finally:
        steps.close()


def _first(steps: Steps[Any], stays: bool) -> tuple[Op, torch.device | None]:
    op = next(steps)
    return (op, None) if stays else on_the_host(op)


def on_the_host(op: Op) -> tuple[Op, torch.device | None]:
    """A request without a device, and the device where its answer belongs, if that is another."""
    if not isinstance(op, AllReduce) or op.tensor.is_cpu:
        return op, None
    (copy,) = stage([op.tensor]).wait()
    return AllReduce(copy, op.divisor, in_place=True), op.tensor.device


def check_peer(op: Send | Receive, rank: int, size: int) -> None:
    """Raise :class:`ProtocolError` unless ``op`` of worker ``rank`` names another one of ``size`` workers."""
    peer = op.destination if isinstance(op, Send) else op.source
    if not 0 <= peer < size or peer == rank:
        raise ProtocolError(
            f"worker {rank} asks for {describe(op)}; there are workers 0 to {size - 1}, itself excluded"
        )


def check_length(source: int, num_bytes: int, max_num_bytes: int | None) -> None:
    """Raise :class:`ProtocolError` if worker ``source`` announces a message that is longer than was agreed."""
    if num_bytes < 0 or (max_num_bytes is not None and num_bytes > max_num_bytes):
        limit = "" if max_num_bytes is None else f", where at most {max_num_bytes} were expected"
        raise ProtocolError(
            f"worker {source} announced a message of {num_bytes} bytes{limit}; all workers must train the same model "
            "with the same method"
        )


def describe(op: Op) -> str:
    """One phrase for error messages.

    Example:
        >>> describe(Receive(source=3, read=as_it_is))
        'Receive(source=3)'
    """
    match op:
        case AllReduce(tensor):
            return f"AllReduce({tensor.numel()} entries)"
        case AllGather(message):
            return f"AllGather({message.numel()} bytes)"
        case Send(destination, message):
            return f"Send(destination={destination}, {message.numel()} bytes)"
        case Receive(source):
            return f"Receive(source={source})"
        case ReceiveAny():
            return "ReceiveAny()"
        case Tell(message):
            return f"Tell({message.numel()} bytes)"
        case Compute(seconds):
            return f"Compute({seconds} s)"
