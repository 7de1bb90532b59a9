"""No exchange accepts a message of a kind that the method does not send, over the whole catalogue."""

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import pytest
import torch
from method_cases import CATALOGUE, OPTIMIZERS, backward, small_model, suited
from torch import Tensor

from thinwire.compressors import Identity
from thinwire.errors import ProtocolError, WireError
from thinwire.exchanges import AllReduce, Gossip, IntegerSum, LeaderSupport, OrthonormalLines, PowerIteration
from thinwire.exchanges.asynchronous import Control, read_answer
from thinwire.exchanges.changing_graphs import ChangingGraph, weights_of
from thinwire.exchanges.reading import MessageReader
from thinwire.layout import Segments
from thinwire.methods import parse_method
from thinwire.payloads import DCT, Constant, Dense, Payload
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.steps import AllGather, Send, Steps
from thinwire.wire import decode, encode
from thinwire.worker import Server, Worker, needs_server

SIZE = 3


class Forger:
    """Runs a worker's program, but sends for its messages others that stand for as many entries."""

    def __init__(self, is_answer: bool = False) -> None:
        self.num_forged = 0
        self._is_answer = is_answer

    def forged(self, message: Tensor) -> Tensor:
        if not message.numel():
            return message
        start = 1 if self._is_answer else 0
        numel = decode(message[start:]).numel
        self.num_forged += 1
        return torch.cat([message[:start], encode(foreign(numel))])

    def steps(self, program: Steps[Any]) -> Generator[Any, Any, Any]:
        reply: Any = None
        while True:
            try:
                op = program.send(reply)
            except StopIteration as stop:
                return stop.value
            if isinstance(op, Send | AllGather):
                op = replace(op, message=self.forged(op.message))
            reply = yield op


def foreign(numel: int) -> Payload:
    """What nothing in the catalogue sends: few bytes, and more work than for any message."""
    return DCT(DCT(Constant(torch.ones(1), Segments.whole(numel)), 2), 1)


def one_step(name: str, forger_of: int) -> int:
    """How many messages worker ``forger_of`` (the number after the last: the server) forged in one step of all."""
    method = parse_method(name)
    models = [small_model() for _ in range(SIZE)]
    workers = [
        Worker(method, model, suited(method, OPTIMIZERS["plain"])(model.parameters()), rank=rank, size=SIZE, seed=1)
        for rank, model in enumerate(models)
    ]
    programs: list[Any] = []
    for rank, (worker, model) in enumerate(zip(workers, models, strict=True)):
        backward(model, rank, 0)
        programs.append(steps(worker, model, rank))
    if needs_server(method):
        programs.append(Server(method, small_model(), size=SIZE).serve(SIZE))
    forger = Forger(is_answer=forger_of == SIZE)
    programs[forger_of] = forger.steps(programs[forger_of])
    Simulation(len(programs)).run(programs)
    return forger.num_forged


def steps(worker: Worker, model: Any, rank: int) -> Steps[None]:
    """Until there was an exchange."""
    while worker.num_exchanges == 0:
        backward(model, rank, worker.num_steps)
        yield from worker.step()


CASES = [(name, rank) for name in CATALOGUE for rank in range(SIZE + needs_server(parse_method(name)))]


@pytest.mark.parametrize(("name", "rank"), CASES)
def test_a_message_of_a_foreign_kind_is_refused(name: str, rank: int) -> None:
    if sends_nothing(parse_method(name).exchange, rank):
        assert one_step(name, rank) == 0
        return
    with pytest.raises(WireError, match=r"a payload of kind \d+ \(.*\) came where .* are expected"):
        one_step(name, rank)


def sends_nothing(exchange: Any, rank: int) -> bool:
    """Whether a worker only joins in sums in the first exchange, or talks to nobody."""
    if isinstance(exchange, AllReduce | IntegerSum | OrthonormalLines):
        return True
    if isinstance(exchange, PowerIteration):
        return exchange.factors == Identity()
    if isinstance(exchange, LeaderSupport):
        return rank != 0  # whose turn it is
    if isinstance(exchange, Gossip) and isinstance(exchange.graph, ChangingGraph):
        return list(weights_of(exchange.graph, SIZE, 0, Key(1).fold("exchange", 0))[rank]) == [rank]
    return False


def test_the_answer_of_a_server_is_of_an_agreed_kind() -> None:
    answer = torch.cat([torch.tensor([int(Control.GO_ON)], dtype=torch.uint8), encode(foreign(9))])
    with pytest.raises(WireError, match=r"kind 9 \(DCT\) came"):
        read_answer(answer, MessageReader(9, frozenset((1, 2))))


def test_a_message_for_a_shorter_vector_is_refused() -> None:
    """One for a longer vector is no message of this length at all."""
    reader, messages = MessageReader(3), [encode(Dense(torch.ones(3))), encode(Dense(torch.ones(2)))]
    reads: list[Callable[[], object]] = [
        lambda: reader.part(messages[1], "it"),
        lambda: reader.vector(messages[1]),
        lambda: list(reader.parts(messages)),
        lambda: reader.mean(messages),
        lambda: MessageReader(6).joined(messages, [0, 3, 6]),
    ]
    for read in reads:
        with pytest.raises(ProtocolError, match="a vector of 2 entries where 3 were expected"):
            read()
    with pytest.raises(WireError):
        MessageReader(1).payload(messages[1])
