"""Which methods can go on when others sit at their places in every round."""

import torch

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.exchanges import Aggregate, Context
from thinwire.experiments.clients.setting import Clients
from thinwire.layout import Layout
from thinwire.methods import Method, ModelAveraging, Update, check_method
from thinwire.methods.participation import Independent
from thinwire.payloads import Dense
from thinwire.random import Key
from thinwire.worker import Worker, needs_server

_FEW = (1, 2, 3)
"""Numbers of participants that an exchange must bear, where their number is drawn."""


def check_fits(method: Method, layout: Layout, clients: Clients) -> None:
    """Refuse a method under which something is bound to a place, where clients take turns.

    Raises:
        ConfigError: there is no common point at the end of a round, or the exchange keeps something between rounds.
    """
    if needs_server(method) or not method.exchange.workers_agree:
        raise ConfigError(
            f"under {method.exchange} a worker has a place, a clock or a mean of its own, which clients that take "
            "turns cannot have; leave out --clients, or take an exchange with one mean for all, such as gather"
        )
    if isinstance(method, ModelAveraging):
        if method.fragments > 1 or method.delay:
            raise ConfigError(
                f"fragments = {method.fragments} and delay = {method.delay} were given: after an exchange a worker "
                "still has steps to hand in or a result to apply, but a client's turn is over; leave out --clients, "
                "or fragments and delay"
            )
        if not _ends_at_common_point(method.update):
            raise ConfigError(
                f"under update={method.update} workers keep models of their own after an exchange, and clients whose "
                "turn is over hold none; leave out --clients, or take a method under which all go on with the mean"
            )
    segments = check_method(method, layout)
    sizes = {clients.per_round, *(_FEW if isinstance(clients.participation, Independent) else ())}
    for size in sorted(sizes):
        for rank in sorted({0, size // 2, size - 1}):
            ctx = Context(rank, size, Key(0), segments, 0, layout)
            refuse_bound(method, list(method.exchange.init(ctx, method.compressor)))


def refuse_bound(method: Method, kept: list[str]) -> None:
    """Raise :class:`ConfigError` if an exchange keeps something, which would be bound to a place or a number."""
    if kept:
        raise ConfigError(
            f"{method.exchange} keeps {', '.join(kept)} between exchanges, bound to a worker's place, where another "
            "client will sit; leave out --clients, or take an exchange that keeps nothing, such as gather"
        )


def check_common(workers: list[Worker]) -> None:
    """Refuse, after an exchange, what an update keeps for each worker and should have in common for all.

    Raises:
        ConfigError: it does.
    """
    first, *others = (worker.channels[0].update for worker in workers[:2])
    for other in others:
        for name, tensor in first.items():
            if not torch.equal(tensor, other[name]):
                raise ConfigError(
                    f"{workers[0].method} keeps {name!r} for each worker apart, which would pass from client to client "
                    "with the place; leave out --clients"
                )


def _ends_at_common_point(update: Update) -> bool:
    """By a trial: whether what a worker goes on with is the reference point itself."""
    zeros = torch.zeros(1, dtype=torch.float32, device=CPU)
    state = update.init(zeros)
    nothing = Aggregate(zeros, finite=True, message_bytes=0, message=Dense(zeros), num_vectors=1)
    following = update.apply(nothing, zeros.clone, state)
    return following is state.get("reference")
