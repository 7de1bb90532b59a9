"""Messages that are changes of an estimate."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from thinwire.arrays import copy_of, zeros
from thinwire.compressors import Identity
from thinwire.compressors.base import Compressor, Traits, tuned
from thinwire.compressors.seeded_rand_k import common_key
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.all_reduce import AllReduce
from thinwire.exchanges.base import Aggregate, Context, Exchange
from thinwire.exchanges.gather import Gather
from thinwire.kernels.flat.finite import is_finite
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import MemorySender, Sender
from thinwire.steps import Steps


@runtime_checkable
class ChangeAdder(Exchange, Protocol):
    """An exchange that adds up what workers send, see :class:`thinwire.memory.EstimatingMemory`."""

    @property
    def change_rate(self) -> float | None:
        """The share of a change that stays in the estimate, that of the workers' memories; None: not tuned yet."""
        ...

    @property
    def restart(self) -> float | None:
        """The probability with which the mean of the vectors themselves takes the estimate's place; None: not tuned."""
        ...


@register
@dataclass(frozen=True, slots=True)
class Accumulating:
    """Workers exchange changes by ``exchange`` and go on with ``h + mean``; ``h = h + rate mean`` is what stays.

    Each remembers the sum h, which is the same on all: the mean of the estimates that the workers' memories hold, up to
    rounding. With a rate of 1 and the memory ``EF21`` workers go on with the mean estimate itself; with less, and
    ``Shift``, with DIANA's ``h + mean Q``.

    Over ``ParameterServer(downlink=C)``, which remembers, the server has the mean estimate, and all others what they
    heard of it: ``h = h + C(mean estimate - h)``, EF21-BC (Fatkhullin et al. 2021).

    Args:
        exchange: by which the changes become a mean.
        rate: of the estimate; None: ``1 / (1 + omega)`` of the method's compressor, as the memory ``Shift`` has it.
        restart: with this probability, in a draw that all have in common, the vectors themselves are all-reduced, and
            their mean is the estimate: MARINA, with the memory ``Change``. None: ``1 / (1 + omega)``, at which
            restarts take about as many bytes as messages.

    Raises:
        ConfigError: a rate or a probability out of range.
    """

    exchange: Exchange = Gather()
    rate: float | None = 1.0
    restart: float | None = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        if self.rate is not None and not 0.0 < self.rate <= 1.0:
            raise ConfigError(f"an estimate with the rate {self.rate} was asked for; it is above 0 and at most 1")
        if self.restart is not None and not 0.0 <= self.restart <= 1.0:
            raise ConfigError(f"restart={self.restart} was given; it is a probability, from 0 to 1")

    @property
    def needs_linear(self) -> bool:
        """As the inner exchange."""
        return self.exchange.needs_linear

    @property
    def workers_agree(self) -> bool:
        """As the inner exchange."""
        return self.exchange.workers_agree

    @property
    def change_rate(self) -> float | None:
        """The rate."""
        return self.rate

    def tuned(self, traits: Traits) -> "Accumulating":
        """With ``1 / (1 + omega)`` for what was left open."""
        share = 1.0 / (1.0 + traits.error)
        rate = share if self.rate is None else self.rate
        restart = share if self.restart is None else self.restart
        return replace(self, exchange=tuned(self.exchange, traits), rate=rate, restart=restart)

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """An estimate of zeros, beside what the inner exchange remembers."""
        return {"estimate": zeros(ctx.layout.numel, ctx.device), **self.exchange.init(ctx, compressor)}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """The inner exchange, and a sum; or the vectors' mean."""
        if self.rate is None or self.restart is None:
            raise ConfigError(f"{self} waits for a compressor; give numbers, or take it from thinwire.methods.fitted")
        inner = {name: tensor for name, tensor in state.items() if name != "estimate"}
        if self._restarts(ctx):
            fresh = yield from _exact(x, sender, ctx)
            return replace(fresh, state={"estimate": copy_of(fresh.mean), **inner}) if fresh.finite else fresh
        change = yield from self.exchange.run(x, sender, ctx, inner)
        if not change.finite:
            return change
        estimate = copy_of(state["estimate"])
        change.add_to(estimate)
        kept = estimate
        if self.rate != 1.0:
            kept = copy_of(state["estimate"])
            change.add_to(kept, self.rate)
        following = {"estimate": kept, **change.state}
        return replace(change, result=estimate, finite=is_finite(estimate), state=following)

    def _restarts(self, ctx: Context) -> bool:
        """A coin that falls alike on all workers."""
        if not self.restart:
            return False
        return common_key(ctx.key).fold("restart").bits64() < self.restart * 2.0**64


def _exact(x: Handed, sender: Sender, ctx: Context) -> Steps[Aggregate]:
    """The mean of the vectors; the memory hears what was sent."""
    own = Handed(copy_of(x.look()))
    sender.add_residual(x)
    aggregate = yield from AllReduce().run(own, MemorySender(Identity()), replace(ctx, keeps_sent=True), {})
    if aggregate.finite:
        sender.commit(aggregate.sent)
    return aggregate
