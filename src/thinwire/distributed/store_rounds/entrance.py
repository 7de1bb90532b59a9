"""A method over a store as hooks of an optimizer's step."""

import re

import torch
from torch import nn

from thinwire.distributed.store_rounds.handle import StoreSynchronizer
from thinwire.distributed.store_rounds.journal import Journal
from thinwire.distributed.store_rounds.objects import Objects
from thinwire.distributed.store_rounds.settings import Deadline, Patience, RoundSettings, patience_of
from thinwire.distributed.store_rounds.station import Station
from thinwire.errors import ConfigError
from thinwire.exchanges import Gather
from thinwire.files import StrPath
from thinwire.methods import Method, ModelAveraging, Outer, parse_method
from thinwire.stores import Address, RunKey, Seal, SharedKeySeal, open_store
from thinwire.worker import Worker


def synchronize_by_store(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    method: str | Method,
    *,
    store: Address,
    rank: int,
    size: int,
    run: str,
    key: RunKey | Seal,
    seed: int = 0,
    deadline: float | Patience | None = None,
    state_file: StrPath | None = None,
    settings: RoundSettings | None = None,
) -> StoreSynchronizer:
    """From now on ``optimizer.step()`` also takes part in rounds with workers that reach the same store.

    No process group, no launcher and no route between the workers is needed. When the method's schedule says so, a
    worker puts its message into the store, waits for the others', and all go by one list of the messages that count.
    Whoever is late, damaged, a stranger or gone is left out of a round. What a late worker did stays with it until its
    next message counts; a worker that comes back goes through the rounds that it has missed.

    All workers must begin with the same parameters (build the model under the same seed, or load the same file).

    Args:
        optimizer: any ``torch.optim`` optimizer over parameters of ``model``.
        model: the replica of this worker.
        method: one that averages models, with ``exchange=gather``: ``"signtopk:density=1%,every=50"``,
            ``"qsparse:density=1%,every=50,exchange=gather"``, ``"sparseloco:every=50"``.
        store: a folder, an address such as ``s3://bucket/folder``, or a store, see :func:`thinwire.stores.open_store`.
        rank: this worker, from 0 to ``size - 1``; no two may have the same.
        size: number of workers. The mean is always over all of them, so that nothing is rescaled when one is missing.
        run: the name of this training: letters, digits and ``_ . = -``. One store may hold several.
        key: who may take part: the key that all workers share, or a seal such as
            :class:`thinwire.stores.SignatureSeal`.
        seed: the same on every worker; addresses the method's randomness.
        deadline: how long others are waited for in a round, in seconds, or what decides that; by default a
            :class:`Deadline`, which follows the time that rounds take.
        state_file: a local file in which this worker's state is kept before each message is put. A worker that is
            started again with it neither loses nor repeats a message. It takes as much as the model, its optimizer's
            state, what the method remembers of it, and what all have in common.
        settings: what is kept in the store, and how often it is asked; the defaults of :class:`RoundSettings`.

    Raises:
        ConfigError: a method that cannot be had over a store, or that does not fit the model; a rank, run or key that
            is none.
        StoreError: the store does not answer. So may ``optimizer.step()``, whose own step counts then; the next one,
            or ``handle.catch_up()``, finishes the round first.

    Example:
        >>> import tempfile
        >>> folder, model = tempfile.TemporaryDirectory(), nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> settings = {"store": folder.name, "rank": 0, "size": 1, "run": "example", "key": RunKey.create()}
        >>> with synchronize_by_store(optimizer, model, "signtopk:k=1,every=1", **settings) as handle:
        ...     model(torch.ones(1, 2)).sum().backward()
        ...     optimizer.step()
        >>> handle.num_rounds, handle.participation
        (1, {0: 1.0})
        >>> folder.cleanup()
    """
    product = parse_method(method) if isinstance(method, str) else method
    _check_method(product)
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*", run) is None:
        raise ConfigError(
            f"run = {run!r} was given; a name has letters, digits and _ . = -, and begins with none of . = -"
        )
    worker = Worker(product, model, optimizer, rank=rank, size=size, seed=seed)
    seal = SharedKeySeal(key) if isinstance(key, RunKey) else key
    if not isinstance(seal, Seal):
        raise ConfigError(f"key = {type(key).__name__} was given; give a RunKey, or a seal such as SignatureSeal")
    objects = Objects(open_store(store), seal, run)
    station = Station(objects, settings or RoundSettings(), worker.rank, worker.size)
    journal = None if state_file is None else Journal(state_file, run)
    return StoreSynchronizer(
        optimizer, worker, station, patience_of(Deadline() if deadline is None else deadline), journal
    )


def _check_method(method: Method) -> None:
    """What a round over a store can be: one all-gather of messages, after which all have the same mean of models."""
    is_fit = isinstance(method, ModelAveraging) and isinstance(method.update, Outer) and not method.states
    if not is_fit or not isinstance(method.exchange, Gather):
        kind = type(method).__name__
        part = f"exchange={method.exchange}" if is_fit else f"a method that is no averaging of models ({kind})"
        if isinstance(method, ModelAveraging) and not is_fit:
            part = f"states={method.states}" if method.states else f"update={method.update}"
        raise ConfigError(
            f"{part} was given; over a store go methods that average models by a gather and an outer step: topk, "
            "signtopk, mem-sgd, ef-signsgd, pqasgd, sparseloco and streaming-diloco with every=..., qsparse with "
            "exchange=gather, and any other with dataclasses.replace(method, exchange=thinwire.exchanges.Gather())"
        )
