"""A method is a frozen product of choices."""

from dataclasses import dataclass
from typing import TypeAlias

from thinwire.compressors import Compressor, Identity
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges import AllReduce, AsynchronousServer, ChangeAdder, Exchange, Gather, Gossip
from thinwire.layout import Granularity, Whole
from thinwire.memory import EstimatingMemory, Memory, NoMemory, Trigger
from thinwire.methods.consensus import Consensus
from thinwire.methods.late import Late
from thinwire.methods.neighbours import NeighbourUpdate
from thinwire.methods.partial import Partial
from thinwire.methods.schedules import Every, Schedule
from thinwire.methods.server_updates import ServerUpdate
from thinwire.methods.states import SyncedState
from thinwire.methods.tracking import Tracking
from thinwire.methods.updates import Outer, Update
from thinwire.methods.warm_up import WarmUp, compressor_at


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class GradientAveraging:
    """Every step the workers' gradients are compressed and averaged, then the optimizer steps with the mean.

    The memory, if any, is in units of a gradient. With the defaults this is plain data-parallel SGD.

    Args:
        memory: what becomes of what messages leave out.
        compressor: what makes the messages.
        exchange: how they become a mean.
        granularity: into which segments the gradient is split for compression.
        clip_norm: before the memory, each worker's gradient is scaled to a norm of at most ``clip_norm / sqrt(P)``
            (local clipping of Deep Gradient Compression, Lin et al. 2018).
        warm_up: compressors of the first exchanges.
        reset_memory: whether the memory is set to zero when the learning rate falls below half of what it was.

    Raises:
        ConfigError: a part of the wrong kind, or an exchange that adds messages before they are decoded with a
            compressor that is not linear.
    """

    memory: Memory = NoMemory()
    compressor: Compressor = Identity()
    exchange: Exchange = AllReduce()
    granularity: Granularity = Whole()
    clip_norm: float | None = None
    warm_up: WarmUp | None = None
    reset_memory: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        _check_parts(self)
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise ConfigError(f"a gradient clipped to the norm {self.clip_norm} was asked for; it must be above 0")

    def compressor_at(self, number: int) -> Compressor:
        """The compressor of exchange ``number``, counted from 0."""
        return compressor_at(self.warm_up, self.compressor, number)

    def all_compressors(self) -> tuple[Compressor, ...]:
        """Every compressor that some exchange uses."""
        return (*(self.warm_up.compressors if self.warm_up else ()), self.compressor)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAveraging:
    """Workers step on their own; when the schedule says so their displacements are compressed and averaged.

    The memory is in units of the parameters: learning rates, momentum and local steps are all inside. With a
    sparsifier, a quantizer and error feedback this is Qsparse-local-SGD (Basu et al. 2019, Alg. 1).

    Args:
        schedule: after which local steps workers communicate.
        memory: what becomes of what messages leave out.
        compressor: what makes the messages.
        exchange: how they become a mean.
        granularity: into which segments the vector is split for compression.
        update: what is exchanged, and what becomes of the mean.
        warm_up: compressors of the first exchanges (of each fragment).
        reset_memory: whether the memory is set to zero when the learning rate falls below half of what it was.
        fragments: the vector is split into so many consecutive parts of equal length; each exchange is of one of them,
            in turn (sparse parameter averaging; Streaming DiLoCo).
        delay: local steps between an exchange and the step after which its result is applied.
        states: tensors of the local optimizer's state that are averaged too, each at its own period.
        trigger: whether a worker has enough to say; it always does if not given.
        tracking: what the optimizer steps by in place of the worker's own gradient, exchanged beside the model.

    Raises:
        ConfigError: a part of the wrong kind, states where workers have no common mean, tracking without gossip after
            every step, or an exchange that adds messages before they are decoded with a compressor that is not linear.
    """

    schedule: Schedule = Every()
    memory: Memory = NoMemory()
    compressor: Compressor = Identity()
    exchange: Exchange = AllReduce()
    granularity: Granularity = Whole()
    update: Update = Outer()
    warm_up: WarmUp | None = None
    reset_memory: bool = False
    fragments: int = 1
    delay: int = 0
    states: tuple[SyncedState, ...] = ()
    trigger: Trigger | None = None
    tracking: Tracking | None = None

    def __post_init__(self) -> None:
        check_types(self)
        _check_parts(self)
        if self.fragments < 1 or self.delay < 0:
            raise ConfigError(
                f"fragments = {self.fragments} and delay = {self.delay} were given; there is at least 1 fragment, and "
                "a delay is 0 or more steps"
            )
        if not self.schedule.workers_agree and not isinstance(self.exchange, AsynchronousServer):
            raise ConfigError(
                f"under {self.schedule} each worker communicates at steps of its own, but in {self.exchange} they "
                "wait for each other; use a schedule that all workers share, or an AsynchronousServer"
            )
        _check_server(self)
        _check_partial(self)
        if isinstance(self.update, Late) and self.delay:
            raise ConfigError(
                f"{self.update} applies a mean one period later; leave out the delay of {self.delay} steps"
            )
        if self.states and not self.exchange.workers_agree:
            raise ConfigError(
                f"states of the optimizer are averaged over all workers, who have no common mean under "
                f"{self.exchange}; leave them out"
            )
        _check_neighbours(self)
        _check_trigger(self)
        _check_tracking(self)

    def compressor_at(self, number: int) -> Compressor:
        """The compressor of the fragment's exchange ``number``, counted from 0."""
        return compressor_at(self.warm_up, self.compressor, number)

    def all_compressors(self) -> tuple[Compressor, ...]:
        """Every compressor that some exchange uses."""
        return (*(self.warm_up.compressors if self.warm_up else ()), self.compressor)


Method: TypeAlias = GradientAveraging | ModelAveraging


def _check_server(method: ModelAveraging) -> None:
    """An asynchronous server and an update with a server's side need each other."""
    update, exchange = method.update, method.exchange
    if isinstance(update, ServerUpdate) != isinstance(exchange, AsynchronousServer):
        raise ConfigError(
            f"update={update} does not go with exchange={exchange}: an asynchronous server works with updates that "
            "have a server's side only (Follow, ElasticFollow, Downpour), and these work with no other exchange"
        )
    if not isinstance(update, ServerUpdate):
        return
    _check_exact(method, update.needs_exact)
    if method.fragments > 1 or method.delay or method.states:
        raise ConfigError("fragments, delay and states have no meaning with an asynchronous server; leave them out")


def _check_partial(method: ModelAveraging) -> None:
    """What is exchanged of all workers must be the same entries, and nothing must be owed of the others."""
    if not isinstance(method.update, Partial):
        return
    if method.delay or not isinstance(method.memory, NoMemory):
        raise ConfigError(
            f"{method.update} leaves what is not sent in the workers' models; leave out the delay and {method.memory}"
        )
    if not isinstance(method.exchange, AllReduce) or not all(c.traits(2).linear for c in method.all_compressors()):
        raise ConfigError(
            f"{method.update} averages entries that all workers choose alike; take exchange=AllReduce() and a linear "
            f"compressor, such as SharedSeedRandK(density=0.005, shared=True), in place of {method.compressor}"
        )


def _check_neighbours(method: ModelAveraging) -> None:
    """What neighbours keep of each other must stay true."""
    update, exchange = method.update, method.exchange
    if not isinstance(update, NeighbourUpdate):
        return
    if update.needs_fixed_graph and isinstance(exchange, Gossip) and not exchange.is_fixed:
        raise ConfigError(
            f"{update} keeps a weighted sum of what its neighbours have said, which is not true of other neighbours, "
            f"and {exchange.graph} has others in each exchange. Use update=Mix(), which sends models as they are, or a "
            "graph that stays: Ring, Torus, Complete, Edges"
        )
    _check_exact(method, update.needs_exact)
    if update.needs_exact and method.delay:
        raise ConfigError(f"{update} takes the place of what was done meanwhile; leave out the delay")


def _check_exact(method: ModelAveraging, needs_exact: bool) -> None:
    is_exact = isinstance(method.compressor, Identity) and isinstance(method.memory, NoMemory)
    if needs_exact and not (is_exact and method.warm_up is None and method.trigger is None):
        raise ConfigError(f"{method.update} sends parameters as they are; leave out the compressor and the memory")


def _check_trigger(method: ModelAveraging) -> None:
    if method.trigger is not None and not isinstance(method.exchange, Gather | Gossip):
        raise ConfigError(
            f"under {method.exchange} every worker has to send something; a trigger goes with Gather and Gossip"
        )


def _check_tracking(method: ModelAveraging) -> None:
    """What is tracked is exchanged as the models are, each time that it has changed."""
    if method.tracking is None:
        return
    if not isinstance(method.update, Consensus) or not isinstance(method.exchange, Gossip):
        raise ConfigError(
            f"{method.tracking} is drawn to the neighbours' as models are by Consensus under Gossip, and "
            f"update={method.update} with exchange={method.exchange} was given; use update=Consensus(gamma=0.1) with "
            "exchange=Gossip(graph=Ring()), or leave tracking out"
        )
    if method.schedule != Every(1) or method.fragments > 1 or method.trigger is not None:
        raise ConfigError(
            f"{method.tracking} changes at every step and is exchanged whole after each; leave out {method.schedule}, "
            "fragments and trigger"
        )


def _check_common(method: "GradientAveraging | ModelAveraging") -> None:
    """Where no mean is common to all, something else must bring the workers' models together, and only there."""
    seeks_consensus = isinstance(method, ModelAveraging) and isinstance(method.update, NeighbourUpdate)
    of_all = method.exchange.workers_agree or isinstance(method.exchange, AsynchronousServer)
    if not of_all and not seeks_consensus:
        raise ConfigError(
            f"under {method.exchange} each worker gets a mean of its own, and the models would drift apart; use "
            "ModelAveraging with update=Consensus()"
        )
    if seeks_consensus and of_all:
        raise ConfigError(
            f"an update for gossip adds up all means, and {method.exchange} rounds each of them to f32, so that the "
            "models would drift; use exchange=Gossip(graph=Complete()), which has the same neighbours and loses nothing"
        )


def _check_estimates(method: "GradientAveraging | ModelAveraging") -> None:
    """Messages that are changes of an estimate must be added up, and others must not."""
    memory, exchange = method.memory, method.exchange
    if not isinstance(memory, EstimatingMemory) or not isinstance(exchange, ChangeAdder):
        if isinstance(memory, EstimatingMemory) or isinstance(exchange, ChangeAdder):
            raise ConfigError(
                f"memory={memory} does not go with exchange={exchange}: one of them has messages that are changes of "
                "an estimate (EF21, Shift, Change sends changes), and only Accumulating adds changes up; give both or "
                "neither"
            )
        return
    if memory.change_rate != exchange.change_rate:
        raise ConfigError(
            f"memory={memory} keeps {memory.change_rate} of a change and exchange={exchange} {exchange.change_rate}; "
            "all must have the same estimate: give both the same rate"
        )
    if exchange.restart != 0.0 and not memory.can_restart:
        raise ConfigError(
            f"{exchange} replaces the estimate by the mean of the vectors, but with memory={memory} messages are "
            "changes of what receivers had before; leave out restart, or use memory=Change()"
        )
    if method.reset_memory:
        raise ConfigError(f"an estimate that all workers share must not be reset; leave reset_memory out with {memory}")


def _check_parts(method: "GradientAveraging | ModelAveraging") -> None:
    _check_estimates(method)
    _check_common(method)
    for compressor in method.all_compressors():
        if method.exchange.needs_linear and not compressor.traits(2).linear:
            raise ConfigError(
                f"{type(method.exchange).__name__} adds messages before they are decoded, which {compressor} does not "
                "allow; use exchange=gather or exchange=server"
            )
