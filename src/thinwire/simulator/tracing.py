"""Requests of programs, kept to ask them again on another network: the clock without the work."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from thinwire.steps import AllGather, AllReduce, Op, Receive, ReceiveAny, Send, Steps, Tell, ask

T = TypeVar("T")


def traced(program: Steps[T], trace: list[Op]) -> Steps[T]:
    """The program, whose requests are kept as :func:`replayed` asks them: sizes without contents.

    Args:
        program: of a worker.
        trace: to which they are appended.
    """
    answer = None
    while True:
        try:
            op = program.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        trace.append(_hollow(op))
        answer = yield from ask(op)


def replayed(trace: Sequence[Op]) -> Steps[None]:
    """A program that asks for the same times and bytes, of tensors without contents; answers mean nothing.

    Example:
        >>> from thinwire.network import Network
        >>> from thinwire.simulator import Simulation
        >>> from thinwire.steps import all_gather, compute
        >>> def program():
        ...     yield from compute(0.5)
        ...     yield from all_gather(torch.zeros(100, dtype=torch.uint8), len)
        >>> traces = [[], []]
        >>> _ = Simulation(2, Network()).run([traced(program(), trace) for trace in traces])
        >>> slow = Simulation(2, Network(latency_s=1.0))
        >>> _ = slow.run([replayed(trace) for trace in traces])
        >>> [round(each, 3) for each in slow.clocks]
        [1.5, 1.5]
    """
    for op in trace:
        yield from ask(op)


def _hollow(op: Op) -> Op:
    match op:
        case AllReduce(tensor):
            return replace(op, tensor=_no_memory(tensor))
        case AllGather(message):
            return replace(op, message=_no_memory(message), combine=_nothing)
        case Send(_, message) | Tell(message):
            return replace(op, message=_no_memory(message))
        case Receive() | ReceiveAny():
            return replace(op, read=_nothing)
    return op


def _no_memory(tensor: Tensor) -> Tensor:
    """As many elements, none of which is anywhere: a trace keeps no message, and what adds them up has no work."""
    return torch.empty_like(tensor, device="meta")


def _nothing(messages: object) -> None:
    del messages
