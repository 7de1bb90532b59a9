"""A method is a frozen product of choices."""

from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from thinwire.arrays import release
from thinwire.compressors import Compressor, Identity, segment_traits
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges import Accumulating, AllReduce, AsynchronousServer, Exchange, Gather, Gossip
from thinwire.layout import Granularity, Layout, Segments, Whole
from thinwire.memory import EF21, Memory, NoMemory, Trigger
from thinwire.methods.neighbours import NeighbourUpdate
from thinwire.methods.schedules import Every, Schedule
from thinwire.methods.server_updates import ServerUpdate
from thinwire.methods.updates import Outer, Update
from thinwire.methods.warm_up import WarmUp, compressor_at
from thinwire.random import Key


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
        trigger: whether a worker has enough to say; it always does if not given.

    Raises:
        ConfigError: a part of the wrong kind, or an exchange that adds messages before they are decoded with a
            compressor that is not linear.
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
    trigger: Trigger | None = None

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
        _check_neighbours(self)
        _check_trigger(self)

    def compressor_at(self, number: int) -> Compressor:
        """The compressor of the fragment's exchange ``number``, counted from 0."""
        return compressor_at(self.warm_up, self.compressor, number)

    def all_compressors(self) -> tuple[Compressor, ...]:
        """Every compressor that some exchange uses."""
        return (*(self.warm_up.compressors if self.warm_up else ()), self.compressor)


Method: TypeAlias = GradientAveraging | ModelAveraging


def is_dense(method: Method) -> bool:
    """Whether every number of every gradient is sent as it is, in 32 or 16 bits: what other methods are compared with.

    Example:
        >>> from thinwire.methods import parse_method
        >>> is_dense(parse_method("sgd")), is_dense(parse_method("bf16-sgd")), is_dense(parse_method("local-sgd"))
        (True, True, False)
    """
    if not isinstance(method, GradientAveraging) or not isinstance(method.exchange, AllReduce):
        return False
    return replace(method, exchange=AllReduce()) == GradientAveraging()


def num_exchanges(method: Method, rank: int, steps: int) -> int:
    """After how many of its first ``steps`` steps a worker exchanges.

    Example:
        >>> from thinwire.methods import parse_method
        >>> num_exchanges(parse_method("sgd"), 0, 10), num_exchanges(parse_method("local-sgd:every=4"), 0, 10)
        (10, 2)
    """
    if isinstance(method, GradientAveraging):
        return steps
    return sum(method.schedule.due(step, rank) for step in range(1, steps + 1))


def check_method(method: Method, layout: Layout) -> Segments:
    """The segments of the model's vector, once it is sure that the method's parts fit together on it.

    Raises:
        ConfigError: error feedback over an operator whose error is 1 or more on a segment of this model, or
            a part that refuses a vector of this length (more entries to keep than there are).
    """
    segments = method.granularity.segments(layout)
    for compressor in method.all_compressors():
        # A trial on zeros lets every part refuse the size on its own terms, before any training.
        compressor.compress(torch.zeros(layout.numel, dtype=torch.float32), Key(0), segments)
        error = segment_traits(compressor, segments).error
        if method.memory.needs_contraction and error >= 1.0:
            raise ConfigError(
                f"{compressor} is not a contraction on segments of {max(segments.distinct_sizes())} entries: "
                f"its error constant is {error:.3g}, and error feedback needs less than 1 or its memory may grow "
                "without bound. Use the scaled form (scaled=yes), more levels, smaller segments, or no memory"
            )
    release()  # what the trials took need not be wanted again
    return segments


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
    if method.fragments > 1 or method.delay:
        raise ConfigError("fragments and delay have no meaning with an asynchronous server; leave them out")


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
    if isinstance(method.memory, EF21) != isinstance(method.exchange, Accumulating):
        raise ConfigError(
            f"memory={method.memory} does not go with exchange={method.exchange}: EF21 sends changes, and only "
            "Accumulating adds changes up; give both or neither"
        )
    if isinstance(method.memory, EF21) and method.reset_memory:
        raise ConfigError("an estimate that all workers share must not be reset; leave reset_memory out with EF21")


def _check_parts(method: "GradientAveraging | ModelAveraging") -> None:
    _check_estimates(method)
    _check_common(method)
    for compressor in method.all_compressors():
        if method.exchange.needs_linear and not compressor.traits(2).linear:
            raise ConfigError(
                f"{type(method.exchange).__name__} adds messages before they are decoded, which {compressor} does not "
                "allow; use exchange=gather or exchange=server"
            )
