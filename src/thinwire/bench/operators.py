"""Every registered compressor alone: compress and encode; decode and add."""

from typing import Any

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.bench.families import BenchFamily, Maker, Member, Prepared, facts_of
from thinwire.bench.inputs import BenchInput
from thinwire.bench.instances import instances
from thinwire.bench.timing import Case
from thinwire.compressors import Compressor
from thinwire.frontier.configurations import describe
from thinwire.layout import Segments
from thinwire.payloads import Payload
from thinwire.random import Key
from thinwire.wire import decode, encode

OPERATORS = "operators"
"""Name of both steps together."""
OPERATOR_STEPS = ("operator-compress", "operator-decode-add")


def operator_families() -> tuple[BenchFamily, ...]:
    """One family an instance, on the vector as a whole."""
    return tuple(_family(compressor) for compressor in instances())


def _family(compressor: Compressor) -> BenchFamily:
    members = tuple(Member(step=step, variant=describe(compressor)) for step in OPERATOR_STEPS)
    return BenchFamily(members=members, open=lambda data: _maker(compressor, data))


def _maker(compressor: Compressor, data: BenchInput) -> Maker:
    operator = Operator(compressor, data)
    return lambda member: operator.prepare(member.step)


class Operator:
    """A compressor, the vector of the turn, and the last message that was made of one."""

    def __init__(self, compressor: Compressor, data: BenchInput) -> None:
        self._compressor = compressor
        self._data = data
        self._segments = Segments.whole(data.numel)
        self._turn = 0
        self._message = torch.empty(0, dtype=torch.uint8, device=CPU)

    def prepare(self, step: str) -> Prepared:
        """One of the two steps."""
        if step == OPERATOR_STEPS[0]:
            return Prepared(case=Case(run=self.compress, refill=self._refill), facts=lambda: facts_of(self._decoded()))
        if not self._message.numel():
            self.compress()
        total = torch.zeros(self._data.numel, dtype=torch.float32, device=CPU)
        return Prepared(case=Case(run=lambda: self._decoded().add_to(total)), facts=lambda: facts_of(self._decoded()))

    def compress(self) -> Tensor:
        """The message of the turn's vector."""
        payload = self._compressor.compress(
            self._data.vector(self._turn), Key(0).fold("bench", self._turn), self._segments
        )
        self._message = encode(payload)
        return self._message

    def _refill(self, turn: int) -> Any:
        self._turn = turn

    def _decoded(self) -> Payload:
        return decode(self._message, max_numel=self._data.numel)
