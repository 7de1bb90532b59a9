"""What a worker's all-gather is answered with: the messages that count, and nothing in place of the others'."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import NumericsError, ProtocolError, WireError
from thinwire.exchanges import Gather
from thinwire.payloads import Dense, Sparse
from thinwire.steps import AllGather
from thinwire.wire import encode

Refuse = Callable[[int, str], None]
"""Is told the rank of a message that is left out, and why."""


def answer(
    op: AllGather, messages: Mapping[int, Tensor], size: int, numel: int, exchange: Gather, refuse: Refuse
) -> tuple[Any, set[int]]:
    """What all-gathering the messages gives, and the ranks of those that count.

    One that cannot be decoded, or is not finite, is left out: a function of its bytes alone, so that every worker does
    the same. They are looked at one by one only where the mean of all is not fit.

    Args:
        op: the request.
        messages: by rank; of the other workers there are none.
        size: number of workers.
        numel: entries of the vector.
        exchange: whose request it is.
        refuse: is told what is left out.

    Raises:
        NumericsError: each message is finite and their sum is not.
    """
    try:
        reply = _mean(op, messages, size, numel, exchange)
        if reply[1]:
            return reply, set(messages)
    except (WireError, ProtocolError):
        pass  # whose fault it is is found below
    reasons = {rank: _unfit(op, message) for rank, message in messages.items()}
    for rank, why in reasons.items():
        if why:
            refuse(rank, why)
    fit = {rank: message for rank, message in messages.items() if not reasons[rank]}
    reply = _mean(op, fit, size, numel, exchange)
    if not reply[1]:
        raise NumericsError(
            "the sum of the workers' messages is not finite, although each of them is; the exchange was not applied on "
            "any worker. Lower the learning rate, or clip gradients"
        )
    return reply, set(fit)


def _unfit(op: AllGather, message: Tensor) -> str:
    """Why a message does not count; empty if it does."""
    try:
        _, is_finite = op.combine([message])
    except (WireError, ProtocolError) as error:
        return str(error)
    return "" if is_finite else "it has NaN or infinity"


def _mean(op: AllGather, messages: Mapping[int, Tensor], size: int, numel: int, exchange: Gather) -> Any:
    """Over the number of all workers, whoever is missing: what each one owes counts as before."""
    if exchange.clip == "none" or not messages:
        nothing = encode(
            Sparse(
                numel,
                torch.empty(0, dtype=torch.int64, device=CPU),
                Dense(torch.empty(0, dtype=torch.float32, device=CPU)),
            )
        )
        return op.combine([messages.get(rank, nothing) for rank in range(size)])
    # The median is that of the messages: workers that are missing have no norm.
    result, is_finite = op.combine([messages[rank] for rank in sorted(messages)])
    if exchange.mean == "all" and len(messages) < size:
        result.mul_(len(messages) / size)
    return result, is_finite
