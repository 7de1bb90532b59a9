"""One part of the flat vector that is exchanged at a time, and everything that is remembered of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinwire.arrays import CPU, empty, zeros
from thinwire.compressors import Compressor
from thinwire.errors import ConfigError
from thinwire.exchanges import Aggregate, Context
from thinwire.exchanges.recompression import max_relayed_num_bytes, relayed_kinds
from thinwire.kernels.flat.flatten import flatten_finite
from thinwire.kernels.flat.unflatten import can_unflatten, unflatten_sparse
from thinwire.layout import Layout, State, views_like
from thinwire.memory import MemorySender, Sender
from thinwire.memory.sender import NonfiniteSender
from thinwire.methods import Method, ModelAveraging, check_method
from thinwire.payloads import Sparse
from thinwire.random import Key
from thinwire.steps import Steps
from thinwire.worker.step_times import StepClock, TimedSender


@dataclass(slots=True)
class Pending:
    """An exchange whose result is to be applied later.

    Args:
        aggregate: what came back.
        due: the number of local steps after which it is applied.
    """

    aggregate: Aggregate
    due: int


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """An exchange that is over, and what the memory will hold once it is accepted.

    Args:
        aggregate: what came back.
        x: the vector that was exchanged.
        memory: the memory's next state.
        intended: what the compressor was given, the memory's part included, or ``x`` itself if it was not used; None
            if it was not asked for.
    """

    aggregate: Aggregate
    x: Tensor
    memory: State
    intended: Tensor | None = None


@dataclass(slots=True, eq=False)
class Channel:
    """A consecutive part of the parameters, with its memory, its reference point and its exchange's state.

    Args:
        method: what is exchanged and how.
        layout: names and shapes of the tensors of this part.
        params: the parameters, or flat views of pieces of them, in layout order.
        rank: this worker.
        size: number of workers.
        key: the seed's.

    Raises:
        ConfigError: a part of the method does not fit this vector.
    """

    method: Method
    layout: Layout
    params: Sequence[Tensor]
    rank: int
    size: int
    key: Key
    memory: State = field(init=False)
    update: State = field(init=False)
    exchange: State = field(init=False)
    rounding: State = field(init=False)
    pending: Pending | None = field(init=False, default=None)
    clock: StepClock | None = field(init=False, default=None)
    """What the time of compression is measured by, if it is."""
    _context: Context = field(init=False)
    _flat: Tensor = field(init=False)
    _viewed: tuple[Tensor, list[Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        numel, device = self.layout.numel, self.params[0].device if self.params else CPU
        segments = check_method(self.method, self.layout)
        longest = max(max_relayed_num_bytes(each, segments) for each in self.method.all_compressors())
        kinds = frozenset[int]().union(*(relayed_kinds(each, segments) for each in self.method.all_compressors()))
        self._context = Context(self.rank, self.size, self.key, segments, longest, self.layout, kinds, device)
        self._flat = zeros(numel, device)
        self._viewed = (self._flat, [])
        self.memory = self.method.memory.init(self._flat)
        self.exchange = self.method.exchange.init(self._context, self.method.compressor)
        self.update = {}
        self.rounding = {}
        if isinstance(self.method, ModelAveraging):
            self.gather(self.params)
            self.update = self.method.update.init(self._flat)
            if any(param.dtype != torch.float32 for param in self.params):
                self.rounding = {"lost": zeros(numel, device)}

    def gather(self, tensors: Sequence[Tensor]) -> tuple[Tensor, bool]:
        """The tensors of this part as one vector, which is written to by the next :meth:`run`; whether it is finite."""
        return self._flat, flatten_finite(_in_f32(tensors), self._flat)

    def gather_params(self) -> tuple[Tensor, bool]:
        """:meth:`gather` for the worker's own parameters, with what rounding took from them."""
        return self._flat, self._read_params(self._flat)

    def marked(self) -> tuple[Tensor, bool]:
        """A vector that tells the other workers that this one has something to say, by not being finite."""
        self._flat.zero_()[:1] = torch.nan
        return self._flat, False

    def local(self) -> Tensor:
        """The worker's own parameters of this part, as they are now, in a new vector."""
        flat = empty(self.layout.numel, self._context.device)
        self._read_params(flat)
        return flat

    def _read_params(self, out: Tensor) -> bool:
        finite = flatten_finite(_in_f32(self.params), out)
        for lost in self.rounding.values():
            out += lost
        return finite

    def write_params(self, flat: Tensor) -> None:
        """Let ``flat`` be the worker's own parameters; what those of fewer bits cannot hold is remembered.

        Else a mean that moves a bf16 parameter by less than half a step would be lost at every exchange.
        """
        self.write(flat, self.params)
        for lost in self.rounding.values():
            flatten_finite(_in_f32(self.params), lost)
            torch.sub(flat, lost, out=lost)

    def run(
        self, x: Tensor, compressor: Compressor, finite: bool, number: int, is_watched: bool = False
    ) -> Steps[Outcome]:
        """Exchange ``x``; nothing is remembered before :meth:`accept`. If it is watched the outcome has what was meant.

        A worker that left an exchange would leave the others waiting: one whose vector is not finite takes part
        with the offending entry, which makes the mean non-finite, so that every worker raises at the same step.
        """
        ctx = Context(
            self.rank, self.size, self.key.fold("exchange", number, "rank", self.rank),
            self._context.segments, self._context.max_num_bytes, self.layout, self._context.kinds, self._context.device,
        )  # fmt: skip
        remembering = MemorySender(compressor, self.method.memory, self.memory, is_watched)
        sender: Sender = remembering if self.clock is None else TimedSender(remembering, self.clock)
        aggregate = yield from self.method.exchange.run(
            x, sender if finite else NonfiniteSender(compressor), ctx, self.exchange
        )
        intended = remembering.intended
        if is_watched and finite and intended is None:
            intended = x  # which the exchange has sent as it is
        return Outcome(aggregate, x, remembering.next_state, intended)

    def accept(self, outcome: Outcome) -> None:
        """Remember what an exchange with a finite aggregate left."""
        self._remember(outcome.x, outcome.memory)
        self.exchange = outcome.aggregate.state

    def reset_memory(self) -> None:
        """Nothing is owed any more."""
        self.memory = self.method.memory.init(self._flat)

    def write(self, flat: Tensor, targets: Sequence[Tensor]) -> None:
        """Copy the entries of ``flat`` to tensors in layout order; quick if ``flat`` is the same tensor every time."""
        if self._viewed[0] is not flat:
            self._viewed = (flat, views_like(flat, targets))
        torch._foreach_copy_(list(targets), self._viewed[1])

    def write_result(self, aggregate: Aggregate, targets: Sequence[Tensor], factor: float = 1.0) -> None:
        """:meth:`write` of what an exchange returned, times ``factor``; a sparse one is not written out before."""
        result = aggregate.result
        if isinstance(result, Sparse) and can_unflatten(targets):
            values = result.kept()
            unflatten_sparse(result.indices, values if factor == 1.0 else values * factor, targets)
        else:
            self.write(aggregate.mean if factor == 1.0 else aggregate.mean * factor, targets)

    def _remember(self, x: Tensor, state: State) -> None:
        """Take the next state of the memory; if ``x`` is part of it, gather into a tensor that is free from now on."""
        if any(tensor is x for tensor in state.values()):
            free = [old for old in self.memory.values() if not any(tensor is old for tensor in state.values())]
            self._flat = free[0] if free else zeros(x.numel(), x.device)
        self.memory = state


def make_channels(method: Method, named: dict[str, Tensor], rank: int, size: int, key: Key) -> list[Channel]:
    """The parameters split into as many consecutive parts of equal length as the method has fragments.

    Raises:
        ConfigError: more fragments than entries, a parameter that would have to be split but is not contiguous, or a
            part of the method that does not fit.
    """
    layout = Layout.of(named)
    count = method.fragments if isinstance(method, ModelAveraging) else 1
    if count == 1:
        return [Channel(method, layout, list(named.values()), rank, size, key)]
    if count > layout.numel:
        raise ConfigError(f"{count} fragments of a model of {layout.numel} parameters were asked for; use fewer")
    bounds = [layout.numel * part // count for part in range(count + 1)]
    channels = []
    for number in range(count):
        pieces = _pieces(named, bounds[number], bounds[number + 1])
        channels.append(
            Channel(method, Layout.of(pieces), list(pieces.values()), rank, size, key.fold("fragment", number))
        )
    return channels


def _pieces(named: dict[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    """The parameters between two entries of the flat vector: whole ones as they are, split ones as flat views."""
    pieces = {}
    begin = 0
    for name, param in named.items():
        end = begin + param.numel()
        first, last = max(start, begin), min(stop, end)
        if first < last:
            if last - first == param.numel():
                pieces[name] = param
            elif param.is_contiguous():
                pieces[name] = param.detach().view(-1)[first - begin : last - begin]
            else:
                raise ConfigError(
                    f"parameter {name!r} would be split into fragments, but its memory is not contiguous; "
                    "make it contiguous or use fewer fragments"
                )
        begin = end
    return pieces


def _in_f32(tensors: Sequence[Tensor]) -> list[Tensor]:
    # Even where there is nothing to do, the call takes longer than the question.
    return [tensor if tensor.dtype == torch.float32 else tensor.float() for tensor in tensors]
