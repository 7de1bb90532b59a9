"""Whole steps: error feedback, compress and encode; encode; decode; decode and add."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from thinwire.arrays import CPU, zeros
from thinwire.bench.families import BenchFamily, Facts, Maker, Member, Prepared, Turns, facts_of
from thinwire.bench.inputs import BenchInput
from thinwire.bench.timing import Case
from thinwire.compressors import QSGD, Compressor, Sign, TopK
from thinwire.layout import Segments, State
from thinwire.memory import ErrorFeedback
from thinwire.payloads import Payload
from thinwire.random import Key
from thinwire.wire import decode, encode

Part: TypeAlias = Literal["whole", "encode", "decode", "decode-add"]
Norm: TypeAlias = Literal["max", "l2"]
Coding: TypeAlias = Literal["packed", "elias", "entropy"]
Cut: TypeAlias = Literal["whole", "tensors", "buckets of 512"]
_ALL: tuple[Part, ...] = ("whole", "encode", "decode", "decode-add")
BUCKET = 512
"""Entries of a segment of the quantizers, the bucket size of QSGD."""
_WARM_UP, _NUM_MESSAGES = 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A compressor under error feedback, and which of its parts are timed.

    Args:
        step: name of the whole step.
        variant: what tells it from others of that name.
        compressor: what makes the payloads.
        cut: into which segments the vector is split.
        density: kept share, for a sparsifier.
        parts: what is timed.
    """

    step: str
    variant: str
    compressor: Compressor
    cut: Cut = "whole"
    density: float | None = None
    parts: tuple[Part, ...] = _ALL

    def members(self) -> tuple[Member, ...]:
        """One for each part."""
        return tuple(self._member(part) for part in self.parts)

    def segments(self, data: BenchInput) -> Segments:
        """The segments of a vector of this input."""
        if self.cut == "tensors":
            return data.tensors
        return Segments.whole(data.numel) if self.cut == "whole" else Segments.uniform(data.numel, BUCKET)

    def family(self) -> BenchFamily:
        """The parts, on one memory that is warm."""
        return BenchFamily(members=self.members(), open=self._open)

    def _member(self, part: Part) -> Member:
        if part == "whole":
            return Member(step=self.step, variant=self.variant, density=self.density)
        return Member(step=part, variant=f"{self.step.removeprefix('ef-')} {self.variant}", density=self.density)

    def _open(self, data: BenchInput) -> Maker:
        feedback = Feedback(self, data)
        for turn in range(_WARM_UP):
            feedback.refill(turn)
            feedback.compress()
        return lambda member: _prepare(feedback, "whole" if member.step == self.step else member.step)


class Feedback:
    """The state of error feedback between two calls: two tensors that take turns as input and residual."""

    def __init__(self, scheme: Scheme, data: BenchInput) -> None:
        self.data = data
        self._compressor = scheme.compressor
        self._segments = scheme.segments(data)
        self._memory = ErrorFeedback()
        self._x = zeros(data.numel, CPU)  # as a worker keeps it
        self._state: State = self._memory.init(self._x)
        self._key = Key(0)
        self._payload: Payload | None = None

    def refill(self, turn: int) -> None:
        """Copy the turn's vector to where the next one is compressed."""
        self._payload = None
        self._x.copy_(self.data.vector(turn))
        self._key = Key(0).fold("bench", turn)

    def compress(self) -> Payload:
        """Add the residual, compress, keep what is left out."""
        x, residual = self._x, self._state["residual"]
        self._payload, self._state = self._memory.compress(x, self._compressor, self._key, self._segments, self._state)
        self._x = residual if self._state["residual"] is x else x
        return self._payload

    def step(self) -> Tensor:
        """The whole of it: compress and encode."""
        return encode(self.compress())

    def facts(self) -> Facts:
        """Of the last payload."""
        return Facts() if self._payload is None else facts_of(self._payload)

    def payloads(self, count: int) -> list[Payload]:
        """Those of further turns."""
        made = []
        for turn in range(count):
            self.refill(turn)
            made.append(self.compress())
        return made


def _prepare(feedback: Feedback, part: str) -> Prepared:
    if part == "whole":
        return Prepared(case=Case(run=feedback.step, refill=feedback.refill), facts=feedback.facts)
    numel = feedback.data.numel
    made = feedback.payloads(_NUM_MESSAGES)
    facts = facts_of(made[-1])
    payloads, messages = Turns(made), Turns([encode(payload) for payload in made])

    def run_encode() -> Tensor:
        return encode(payloads.current)

    def run_decode() -> Payload:
        return decode(messages.current, max_numel=numel)

    if part == "encode":
        return Prepared(case=Case(run=run_encode, refill=payloads.refill), facts=lambda: facts)
    if part == "decode":
        return Prepared(case=Case(run=run_decode, refill=messages.refill), facts=lambda: facts)
    total = torch.zeros(numel, dtype=torch.float32, device=CPU)
    return Prepared(case=Case(run=lambda: run_decode().add_to(total), refill=messages.refill), facts=lambda: facts)


def schemes() -> tuple[Scheme, ...]:
    """All that is timed; in quantizers, one level a sign is 2 bits, 7 are 4 bits and 127 are 8."""
    signs = Sign()
    sparse = (
        Scheme(step="ef-topk-sign", variant="whole", density=0.01, compressor=TopK(density=0.01, values=signs)),
        Scheme(step="ef-topk-sign", variant="whole", density=0.001, compressor=TopK(density=0.001, values=signs)),
        Scheme(
            step="ef-topk-sign", variant="tensors", density=0.01, cut="tensors",
            compressor=TopK(density=0.01, values=signs),
        ),
    )  # fmt: skip
    packed = tuple(_qsgd(bits, norm, "packed", _ALL) for norm in _NORMS for bits in (2, 4, 8))
    short = tuple(_qsgd(bits, norm, "entropy", ("whole", "encode", "decode")) for norm in _NORMS for bits in (2, 4, 8))
    elias = tuple(_qsgd(4, norm, "elias", ("encode", "decode")) for norm in _NORMS)
    dense = (
        Scheme(step="ef-sign", variant="buckets of 512", cut="buckets of 512", compressor=signs),
        Scheme(step="ef-sign", variant="tensors", cut="tensors", compressor=signs),
    )
    return (*sparse, *packed, *short, *elias, *dense)


_NORMS: tuple[Norm, ...] = ("max", "l2")


def _qsgd(bits: int, norm: Norm, coding: Coding, parts: tuple[Part, ...]) -> Scheme:
    # Scaled, as error feedback needs it: unscaled, the residual would grow without bound.
    compressor = QSGD(levels=QSGD.bits_to_levels(bits), norm=norm, scaled=True, coding=coding)
    variant = f"{bits} bits, {norm}" + ("" if coding == "packed" else f", {coding}")
    return Scheme(step="ef-qsgd", variant=variant, cut="buckets of 512", compressor=compressor, parts=parts)
