"""No exchange accepts a message of a kind that the method does not send, over the whole catalogue."""

import re
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
import torch
from method_cases import CATALOGUE, OPTIMIZERS, backward, small_model, suited
from torch import Tensor

from thinwire.errors import WireError
from thinwire.layout import Segments
from thinwire.methods import parse_method
from thinwire.payloads import DCT, Constant, Payload
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
    try:
        num_forged = one_step(name, rank)
    except WireError as error:
        assert re.search(r"a payload of kind \d+ \(.*\) came where .* are expected", str(error))  # noqa: PT017
    else:
        assert num_forged == 0  # it only joins in sums, or has no partner
