"""The line that a training script adds."""

import hashlib
from datetime import timedelta

import torch
from torch import nn

from thinwire.distributed.addresses import told_lighthouse
from thinwire.distributed.closures import check_closures
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.optimizer_hooks import check_unattached
from thinwire.distributed.starting_point import common_terms
from thinwire.errors import ConfigError
from thinwire.exchanges import AllReduce, Exchange, Gather, MajorityVote, SharedScale, SignOf, VarianceScaled
from thinwire.fault_tolerance.crew import link_options
from thinwire.fault_tolerance.handle import FaultTolerant
from thinwire.fault_tolerance.membership import LighthouseMembership, host_towards
from thinwire.fault_tolerance.participant import Participant
from thinwire.fault_tolerance.session import Session, SessionOptions
from thinwire.fault_tolerance.state_file import StateFile
from thinwire.files import StrPath
from thinwire.methods import Method, ModelAveraging, Outer, parse_method
from thinwire.worker import Worker
from thinwire.worker.parameters import local_part

_TIMEOUT, _QUORUM_TIMEOUT = timedelta(seconds=10), timedelta(minutes=10)


def fault_tolerant(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    method: str | Method,
    *,
    name: str,
    lighthouse: str | None = None,
    min_size: int = 1,
    state_file: StrPath | None = None,
    clip_grad_norm: float | None = None,
    timeout: timedelta = _TIMEOUT,
    quorum_timeout: timedelta = _QUORUM_TIMEOUT,
    seed: int = 0,
    links: LinkOptions | None = None,
) -> FaultTolerant:
    """From now on ``optimizer.step()`` also exchanges what ``method`` says with whoever takes part at that time.

    Participants come, go and fail. A lighthouse of torchft says who is there; an exchange counts on all of them or is
    made again with those that are left, and what a participant owes the common model is neither lost nor sent twice.
    Each participant is one process, started in any way. The call returns once it has met the others: one that comes to
    those that have trained stands where they stand. There is no process group and no launcher that must know of it.

    Where models are averaged a participant's local work, and its optimizer's state, are its own. Where gradients are,
    all have one model and one optimizer's state, which a participant that comes takes over; what the gradient of its
    first step was of is gone then, so that step has a zero of it.

    Args:
        optimizer: any ``torch.optim`` optimizer over parameters of ``model``.
        model: the replica of this participant.
        method: one that averages models (``local-sgd``, ``diloco``, ``streaming-diloco``, ``qsparse``, ``sparseloco``,
            ``signtopk:every=8`` and the like) or gradients (``sgd``, ``ef-sgd``, ``qsgd``, ``dgc``), with exchange
            ``gather`` or an all-reduce.
        name: of this participant: its own, and the same when it comes back.
        lighthouse: ``http://host:port``; by default what the environment variable ``TORCHFT_LIGHTHOUSE`` says.
        min_size: with fewer participants nothing counts, and all wait. More than half of those that ever take part is
            safe: two parts that cannot reach each other then never train apart.
        state_file: where to write, before each vote, what this participant owes. A participant that is killed comes
            back with it; without one its residual is lost, with a warning. Where gradients are averaged a vote is
            every step, and the file as long as model, optimizer's state and residual.
        clip_grad_norm: the norm to which gradients are clipped before the optimizer's step: of the mean where
            gradients are averaged, else this participant's own.
        timeout: how long to wait, within an exchange, for one that is connected and sends nothing. One that gives no
            sign of life is given up after half of it. A lighthouse that has not answered for as long is asked anew.
        quorum_timeout: how long nothing may count before this raises.
        seed: the same for all; addresses the method's randomness.
        links: how participants reach each other. By default at the address that leads to the lighthouse.

    Raises:
        ConfigError: torchft is not installed, an unknown method or one that does not fit, a state file of another
            participant, or one that trains something else than those that are there.
        WorkerError: no quorum for ``quorum_timeout``.

    Example::

        with thinwire.fault_tolerant(optimizer, model, "diloco:every=50", name=f"site-{site}") as handle:
            while handle.num_steps < 10_000:
                inputs, targets = next(batches)
                optimizer.zero_grad()
                loss_of(model(inputs), targets).backward()
                optimizer.step()
    """
    product = _checked(parse_method(method) if isinstance(method, str) else method)
    address = lighthouse or told_lighthouse()
    if not address:
        raise ConfigError(
            "no lighthouse was given; start one with `torchft_lighthouse --min_replicas 2` and give its address by "
            "lighthouse= or in TORCHFT_LIGHTHOUSE"
        )
    if min_size < 1 or not timeout > timedelta() or not quorum_timeout > timedelta():
        raise ConfigError(
            f"min_size={min_size}, timeout={timeout} and quorum_timeout={quorum_timeout} were given; give at least 1 "
            "participant and positive times"
        )
    check_closures(optimizer, product)
    check_unattached(optimizer)
    worker = Worker(product, model, optimizer, rank=0, size=1, seed=seed)
    _refuse_shards(worker)
    participant = Participant(name, worker)
    kept = None if state_file is None else StateFile(state_file)
    if kept is not None:
        kept.read(participant)
    limit_s = quorum_timeout.total_seconds()
    terms = ", ".join(f"{key}={text}" for key, text in _terms(product, seed, model).items())
    options = SessionOptions(link_options(links, timeout, host_towards(address)), terms, min_size, limit_s)
    membership = LighthouseMembership(name, address, limit_s)
    session = Session(participant, membership, options, kept)
    session.exchange(is_due=participant.has_begun and participant.has_drifted)
    return FaultTolerant(optimizer, worker, session, clip_grad_norm)


def _checked(method: Method) -> Method:
    """The method, if it has nothing that belongs to one worker's place among the others.

    Raises:
        ConfigError: it has.
    """
    if isinstance(method, ModelAveraging) and (not isinstance(method.update, Outer) or method.states):
        raise ConfigError(
            f"{method} was given where participants come and go; take a method with one mean for all of them: sgd, "
            "qsgd, ef-sgd or dgc of gradients; local-sgd, diloco, streaming-diloco, sparse-averaging, qsparse, "
            "sparseloco, or topk, signtopk or ef-signsgd with every=2 or more of models"
        )
    if not _is_even(method.exchange):
        raise ConfigError(
            f"under {method.exchange} a worker has a part of its own to play, which ends with it; where participants "
            "come and go take exchange=gather or a method that all-reduces"
        )
    return method


def _is_even(exchange: Exchange) -> bool:
    """Whether all workers do the same in an exchange."""
    if isinstance(exchange, SharedScale | SignOf | VarianceScaled):
        return _is_even(exchange.exchange)
    return isinstance(exchange, Gather | AllReduce) or exchange == MajorityVote("gather")


def _refuse_shards(worker: Worker) -> None:
    for name, param in worker.parameters().items():
        if local_part(param) is not param:
            raise ConfigError(
                f"{name!r} is sharded over several processes, and a participant is one process; give a whole model"
            )


def _terms(method: Method, seed: int, model: nn.Module) -> dict[str, str]:
    """What must be the same on all; of the model, which may be long, a hash."""
    said = common_terms("fault_tolerant", method, seed, model, {})
    return {**said, "model": hashlib.blake2b(said["model"].encode(), digest_size=8).hexdigest()}
