"""One part of the flat vector that is exchanged at a time, and everything that is remembered of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from thinwire.arrays import CPU, copy_of, divisor_of, empty, release, zeros
from thinwire.compressors import Compressor
from thinwire.exchanges import Aggregate, Context
from thinwire.exchanges.gather import has_sparse_means, is_few
from thinwire.exchanges.recompression import max_relayed_num_bytes, relayed_kinds
from thinwire.kernels.flat.finite import is_finite
from thinwire.kernels.flat.unflatten import can_unflatten_sparse, unflatten_sparse
from thinwire.layout import Layout, State
from thinwire.memory import (
    Difference,
    Handed,
    InPlaceMemory,
    MemorySender,
    NoMemory,
    RoundedMemory,
    Sender,
    StreamingMemory,
)
from thinwire.memory.sender import NonfiniteSender
from thinwire.methods import Consensus, Late, Method, ModelAveraging, Outer, Partial, fitted
from thinwire.payloads import Sparse
from thinwire.payloads.entries import num_entries
from thinwire.random import Key
from thinwire.staging import Verdict
from thinwire.steps import Steps, checked
from thinwire.worker.moment import Moment
from thinwire.worker.parameters import flatten_any, unflatten_any
from thinwire.worker.step_times import StepClock, TimedSender

STREAMED_NUMEL = 1 << 26
"""Entries from which on memory counts more than time: no vector is made of what is sent, where none need be."""


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
        memory: the memory's next state; None if it is made by :meth:`Channel.following`.
        key: that of the exchange, which addresses the rounding of what is remembered.
        intended: what the compressor was given, the memory's part included, or the vector as it was if none was used;
            None if it was not asked for.
        is_exact: whether the vector was sent as it was, without the compressor.
    """

    aggregate: Aggregate
    memory: State | None
    key: Key
    intended: Tensor | None = None
    is_exact: bool = False


@dataclass(slots=True, eq=False)
class Channel:
    """A consecutive part of the parameters, with its memory, its reference point and its exchange's state.

    Args:
        method: what is exchanged and how.
        layout: names and shapes of the tensors of this part.
        params: the parameters, or flat views of pieces of them, in layout order; a hook gives them at each exchange.
        rank: this worker.
        size: number of workers.
        key: the seed's.
        device: where its vectors lie: with the parameters, if it is given any.

    Raises:
        ConfigError: a part of the method does not fit this vector.
    """

    method: Method
    layout: Layout
    params: Sequence[Tensor]
    rank: int
    size: int
    key: Key
    device: torch.device = CPU
    memory: State = field(init=False)
    update: State = field(init=False)
    exchange: State = field(init=False)
    rounding: State = field(init=False)
    pending: Pending | None = field(init=False, default=None)
    clock: StepClock | None = field(init=False, default=None)
    """What the time of compression is measured by, if it is."""
    sums_stay: bool = field(init=False, default=False)
    """Whether the driver sums on the device."""
    _context: Context = field(init=False)

    def __post_init__(self) -> None:
        numel = self.layout.numel
        self.device = device = self.params[0].device if self.params else self.device
        self.method, segments = fitted(self.method, self.layout)
        longest = max(max_relayed_num_bytes(each, segments) for each in self.method.all_compressors())
        kinds = frozenset[int]().union(*(relayed_kinds(each, segments) for each in self.method.all_compressors()))
        self._context = Context(self.rank, self.size, self.key, segments, longest, self.layout, kinds, device)
        self.memory = self.method.memory.init(empty(numel, device))
        self.exchange = self.method.exchange.init(self._context, self.method.compressor)
        self.update = {}
        self.rounding = {}
        if isinstance(self.method, ModelAveraging):
            self.update = self.method.update.init(self.local())
            release()  # where no vector is made of what is sent, none is as long as the parameters' was
            if any(param.dtype != torch.float32 for param in self.params):
                self.rounding = {"lost": zeros(numel, device)}

    def gather(self, tensors: Sequence[Tensor], unit: float = 1.0) -> tuple[Handed, bool | Verdict]:
        """The tensors of this part, over ``unit``, as one new vector for :meth:`run`; whether it is finite."""
        flat = empty(self.layout.numel, self.device)
        finite = flatten_any(tensors, flat)
        if unit != 1.0:
            flat /= divisor_of(flat, unit)
        return Handed(flat), finite

    def gather_signal(self, compressor: Compressor) -> tuple[Handed, bool | Verdict]:
        """What the method's update sends of the worker's own parameters, as :meth:`gather`.

        Where a vector of it would be long and need not be made it is a difference: then :meth:`following_signal` has
        what the memory will hold.
        """
        assert isinstance(self.method, ModelAveraging)
        if self.layout.numel >= STREAMED_NUMEL and self._can_stream(compressor):
            return Handed(None, self._difference()), all(is_finite(param.detach().view(-1)) for param in self.params)
        found: list[bool | Verdict] = []

        def read(minuend: Tensor | None) -> Tensor:
            flat = empty(self.layout.numel, self.device)
            found.append(self._read_params(flat, minuend))
            return flat

        signal = self.method.update.signal(read, self.update)
        return Handed(signal), found[0] if len(found) == 1 else all(found)

    def marked(self, place: int = 0) -> tuple[Handed, bool]:
        """A vector that tells the other workers that this one has something to say, by not being finite there."""
        flat = zeros(self.layout.numel, self.device)
        flat[place : place + 1] = torch.nan
        return Handed(flat), False

    def local(self) -> Tensor:
        """The worker's own parameters of this part, as they are now, in a new vector."""
        flat = empty(self.layout.numel, self.device)
        self._read_params(flat)
        return flat

    def _read_params(self, out: Tensor, minuend: Tensor | None = None) -> bool | Verdict:
        """Parameters, with what rounding took from them, or what they are short of the minuend; all finite?"""
        if not self.rounding:
            return flatten_any(self.params, out, minuend)
        finite = flatten_any(self.params, out)
        for lost in self.rounding.values():
            out += lost
        if minuend is not None:
            torch.sub(minuend, out, out=out)
        return finite

    def write_params(self, flat: Tensor) -> None:
        """Let ``flat`` be the worker's own parameters; what those of fewer bits cannot hold is remembered.

        Else a mean that moves a bf16 parameter by less than half a step would be lost at every exchange.
        """
        unflatten_any(flat, self.params)
        for lost in self.rounding.values():
            flatten_any(self.params, lost)
            torch.sub(flat, lost, out=lost)

    def run(
        self, x: Handed, compressor: Compressor, finite: bool | Verdict, number: int, is_watched: bool = False,
        forgets: bool = False, moment: Moment | None = None,
    ) -> Steps[Outcome]:  # fmt: skip
        """Exchange ``x``; nothing is remembered before :meth:`accept`. If it is watched the outcome has what was meant.

        If it ``forgets``, the outcome of a message of ``x`` has no memory, which would take as much as the vector until
        it is known whether the exchange counts: whoever has the vector still makes it by :meth:`following`.

        A worker that left an exchange would leave the others waiting: one whose vector is not finite takes part
        with the offending entry, which makes the mean non-finite, so that every worker raises at the same step.
        """
        moment = Moment(turn=number) if moment is None else moment
        key, is_read = self.key.fold("exchange", number, "rank", self.rank), is_watched or self._reads_sent
        ctx = replace(self._context, key=key, keeps_sent=is_read, number=moment.turn, params=self.params)
        own = copy_of(x.look()) if is_watched else None
        kept, threshold = x if forgets else None, moment.threshold(self.method)
        remembering = MemorySender(compressor, self.method.memory, self.memory, is_watched, kept, threshold)
        sender: Sender = remembering if self.clock is None else TimedSender(remembering, self.clock)
        exchange, unfit = self.method.exchange, NonfiniteSender(compressor)
        if isinstance(finite, Verdict):
            # The vector's memory may hold something else by then, so its place is told.
            aggregate = yield from checked(
                exchange.run(x, sender, ctx, self.exchange),
                finite.__bool__,
                lambda: exchange.run(self.marked(finite.place)[0], unfit, ctx, self.exchange),
                stays=self.sums_stay,
            )
        else:
            aggregate = yield from exchange.run(x, sender if finite else unfit, ctx, self.exchange)
        is_exact = is_watched and bool(finite) and remembering.intended is None
        intended = own if is_exact else remembering.intended
        return Outcome(aggregate, remembering.next_state, ctx.key, intended, is_exact)

    def following(
        self, outcome: Outcome, tensors: Sequence[Tensor], unit: float = 1.0, *, in_place: bool = False
    ) -> Outcome:
        """The outcome with the memory's next state, from the tensors, over ``unit``, whose vector was exchanged.

        If it is made ``in_place`` the present state is of no use any more, and a memory that can takes the tensors in
        as they lie: that saves two passes over the vector.
        """
        memory, sent = self.method.memory, outcome.aggregate.sent
        are_f32 = unit == 1.0 and all(each.dtype == torch.float32 for each in tensors)
        if in_place and are_f32 and isinstance(memory, InPlaceMemory):
            return replace(outcome, memory=memory.take_in(tensors, sent, self.memory))
        x, _ = self.gather(tensors, unit)
        _, unsent = memory.add_residual(x.take(), self.memory)
        return replace(outcome, memory=memory.commit(sent, unsent))

    def following_signal(self, outcome: Outcome) -> Outcome:
        """The outcome with the memory's next state, of parameters as they were sent; the present one is used up."""
        memory = self.method.memory
        assert isinstance(memory, StreamingMemory)
        following = memory.take_in_difference(self._difference(), outcome.aggregate.sent, self.memory)
        return replace(outcome, memory=following)

    def _difference(self) -> Difference:
        return Difference(self.update["reference"], [param.detach() for param in self.params])

    def _can_stream(self, compressor: Compressor) -> bool:
        method, memory = self.method, self.method.memory
        if not isinstance(method, ModelAveraging) or not isinstance(method.update, Outer) or self.rounding:
            return False
        if self.device != CPU or method.trigger is not None:
            return False  # an accelerator has no kernel for it, and a trigger must see the vector
        if not isinstance(memory, StreamingMemory) or not memory.can_stream(compressor, self._context.segments):
            return False
        return self.can_forget(compressor) and all(param.is_contiguous() for param in self.params)

    def can_forget(self, compressor: Compressor) -> bool:
        """Whether :meth:`following` serves, and the mean will be of few entries: beside it the vector can be kept."""
        is_known = any(compressor is each for each in self.method.all_compressors())
        return is_known and bool(self.memory) and self._says_little(compressor)

    def accept(self, outcome: Outcome) -> None:
        """Remember what an exchange with a finite aggregate left."""
        assert outcome.memory is not None
        memory, left = self.method.memory, outcome.memory
        self.memory = memory.keep(left, self.memory, outcome.key) if isinstance(memory, RoundedMemory) else left
        self.exchange = outcome.aggregate.state

    def become(self, rank: int, size: int) -> None:
        """Be of worker ``rank`` of another number of them, if the exchange does not refuse that."""
        context = replace(self._context, rank=rank, size=size)
        self.method.exchange.init(context, self.method.compressor)
        self.rank, self.size, self._context = rank, size, context

    def reset_memory(self) -> None:
        """Nothing is owed any more."""
        self.memory = self.method.memory.init(empty(self.layout.numel, self.device))

    def write_result(self, aggregate: Aggregate, targets: Sequence[Tensor], factor: float = 1.0) -> None:
        """Copy what an exchange returned, times ``factor``, to tensors; a sparse one is not written out before."""
        result = aggregate.result
        if isinstance(result, Sparse) and can_unflatten_sparse(targets):
            values = result.kept()
            unflatten_sparse(result.indices, values if factor == 1.0 else values * factor, targets)
        else:
            mean = aggregate.mean
            unflatten_any(mean if factor == 1.0 else mean * factor, targets)

    def _says_little(self, compressor: Compressor) -> bool:
        count = self.size * num_entries(compressor.outline(self._context.segments))
        return has_sparse_means(self.method.exchange) and is_few(count, self.layout.numel)

    @property
    def _reads_sent(self) -> bool:
        """Whether something is done, after an exchange, with what was sent."""
        if not isinstance(self.method.memory, NoMemory):
            return True
        return isinstance(self.method, ModelAveraging) and (
            self.method.delay > 0 or isinstance(self.method.update, Consensus | Late | Partial)
        )
