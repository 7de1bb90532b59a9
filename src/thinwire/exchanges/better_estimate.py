"""Each worker's estimate is changed or replaced, whichever comes nearer."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from thinwire.arrays import CPU, copy_of, zeros
from thinwire.compressors.base import Compressor, segment_traits
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.reading import EXACT_KINDS, MessageReader
from thinwire.exchanges.recompression import max_exact_num_bytes, smaller
from thinwire.exchanges.star import collect, spread
from thinwire.kernels.flat.finite import divide_finite, is_finite
from thinwire.kernels.reduce.segment_sums import segment_sums
from thinwire.kernels.sparse.scatter import scatter_write
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender, first_nonfinite
from thinwire.payloads import Concat, Dense, Payload, Sparse
from thinwire.steps import Steps, all_gather, receive, send
from thinwire.wire import encode

_MARK_NUM_BYTES = 2


@register
@dataclass(frozen=True, slots=True)
class BetterEstimate:
    """``b = C(x)``, ``m = g + C(x - g)``, ``g = b if ||b - x|| <= ||m - x|| else m``: EF21+, all go on with mean g.

    (Richtarik, Sokolov, Fatkhullin 2021, Algorithm 3.) A worker sends ``C(x)`` or ``C(x - g)``, and which: a message
    that takes the estimate's place is a concatenation of one vector, two bytes more than a change. So an estimate is
    never farther off than that of EF21 by the same message, nor than the message of ``x`` itself. Estimates begin at 0,
    so the first is ``C(x)``. Both messages are made with the same draws, if C draws any, and C twice a step.

    Whoever averages has to know whose estimate is replaced, so a sum of estimates, which :class:`Accumulating` keeps,
    is not enough. By ``gather`` every worker keeps those of all: P vectors, and P more while an exchange lasts, until
    it counts. By ``server`` one worker keeps P, and the others their own; beside these each has the mean estimate,
    since the server sends only the entries of it that are others than before (or all of it, where that is shorter).

    A memory, if any, comes before: with ``Momentum`` the estimate is of each worker's running mean.

    Args:
        route: ``gather`` or ``server``.
        server: the worker that averages; without effect on ``gather``.

    Raises:
        ConfigError: an unknown route.

    Example:
        >>> from thinwire.compressors import TopK
        >>> from thinwire.layout import Layout, Segments
        >>> from thinwire.memory import MemorySender
        >>> from thinwire.random import Key
        >>> from thinwire.simulator import Simulation
        >>> exchange, sender = BetterEstimate(), MemorySender(TopK(k=1))
        >>> ctx = Context(0, 1, Key(0), Segments.whole(2), 99, Layout(("w",), (torch.Size([2]),)))
        >>> state = exchange.init(ctx, TopK(k=1))
        >>> for x in ([8.0, 1.0], [8.0, 1.0], [0.0, 5.0]):
        ...     (found,) = Simulation(1).run([exchange.run(Handed(torch.tensor(x)), sender, ctx, state)])
        ...     state = found.state
        ...     print(found.mean.tolist())
        [8.0, 0.0]
        [8.0, 1.0]
        [0.0, 5.0]
    """

    route: Literal["gather", "server"] = "gather"
    server: int = 0

    needs_linear: ClassVar[bool] = False
    """Messages are decoded before they are added."""

    workers_agree: ClassVar[bool] = True
    """All add up the same estimates in the same order, or hear of one sum."""

    def __post_init__(self) -> None:
        check_types(self)

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Estimates of zeros, f32 ``[workers, d]``: of all workers, or the worker's own; by ``server`` their mean too.

        Raises:
            ConfigError: the server is none of the workers, or the compressor is no contraction.
        """
        if not 0 <= self.server < ctx.size:
            raise ConfigError(f"worker {self.server} is to be the server, but there are workers 0 to {ctx.size - 1}")
        error = segment_traits(compressor, ctx.segments).error
        if error >= 1.0:
            raise ConfigError(
                f"{compressor} is not a contraction on segments of {max(ctx.segments.distinct_sizes())} entries: its "
                f"error constant is {error:.3g}, and an estimate need not come nearer by its messages. Use the scaled "
                "form (scaled=yes), more levels, or smaller segments"
            )
        numel = ctx.segments.numel
        count = ctx.size if self._averages(ctx) else 1
        estimates = zeros(count * numel, ctx.device).view(count, numel)
        if self.route == "gather":
            return {"estimates": estimates}
        return {"estimates": estimates, "mean": zeros(numel, ctx.device)}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """One all-gather, or one round up and down."""
        ctx = replace(ctx, max_num_bytes=ctx.max_num_bytes + _MARK_NUM_BYTES)
        intended = sender.add_residual(x)
        own = state["estimates"][ctx.rank if self._averages(ctx) else 0]
        payload: Payload
        if is_finite(intended):
            payload, own = _nearer(intended, own, sender.compressor, ctx)
            sender.commit(Dense(own))
        else:
            payload = first_nonfinite(intended)
        message = encode(payload)
        if self.route == "gather":
            decode_all = functools.partial(_decoded, reader=ctx.reader)
            estimates = _moved(state["estimates"], (yield from all_gather(message, decode_all, ctx.max_num_bytes)))
            mean, finite = _mean(estimates)
            following = {"estimates": estimates}
        else:
            estimates, mean = yield from self._serve(message, own, ctx, state)
            finite = is_finite(mean)
            following = {"estimates": estimates, "mean": mean}
        return Aggregate(mean, finite, message.numel(), Dense(own), ctx.size, following)

    def _serve(self, message: Tensor, own: Tensor, ctx: Context, state: State) -> Steps[tuple[Tensor, Tensor]]:
        """The estimates that this worker keeps, and the mean, by way of the server."""
        if ctx.rank == self.server:
            estimates = _moved(state["estimates"], _decoded((yield from collect(message, ctx)), ctx.reader))
            news = _news(_mean(estimates)[0], state["mean"])
            yield from spread(encode(news), ctx)
            return estimates, _told(news, state["mean"])  # zeros have the signs that all others know
        yield from send(self.server, message)
        read = functools.partial(ctx.reader.with_kinds(EXACT_KINDS).part, what="the news of the mean")
        heard = yield from receive(self.server, read, max_exact_num_bytes(ctx.segments.numel))
        return own.view(1, -1), _told(heard, state["mean"])

    def _averages(self, ctx: Context) -> bool:
        """Whether this worker adds up estimates."""
        return self.route == "gather" or ctx.rank == self.server


def _nearer(x: Tensor, estimate: Tensor, compressor: Compressor, ctx: Context) -> tuple[Payload, Tensor]:
    """What to send, and the estimate after it."""
    fresh = compressor.compress(x, ctx.key, ctx.segments)
    replaced = zeros(x.numel(), x.device)
    fresh.add_to(replaced)  # as receivers do, to the sign of zero
    change = compressor.compress(x - estimate, ctx.key, ctx.segments)
    changed = copy_of(estimate)
    change.add_to(changed)
    if _squared_distance(replaced, x) <= _squared_distance(changed, x):
        return Concat((_unmarked(fresh),)), replaced
    return _unmarked(change), changed


def _unmarked(payload: Payload) -> Payload:
    """The same vector by a payload that does not look like a mark: a concatenation of one is that one."""
    while isinstance(payload, Concat) and len(payload.parts) == 1:
        (payload,) = payload.parts
    return payload


def _squared_distance(one: Tensor, other: Tensor) -> float:
    return float(segment_sums(one - other, torch.tensor([0, one.numel()], dtype=torch.int64, device=CPU), 2))


def _decoded(messages: Sequence[Tensor], reader: MessageReader) -> tuple[Payload, ...]:
    return tuple(reader.parts(messages))


def _moved(estimates: Tensor, payloads: Sequence[Payload]) -> Tensor:
    """The workers' estimates after their messages, in new memory."""
    moved = copy_of(estimates)
    for estimate, payload in zip(moved.unbind(), payloads, strict=True):
        if isinstance(payload, Concat) and len(payload.parts) == 1:
            estimate.zero_()
        payload.add_to(estimate)
    return moved


def _mean(estimates: Tensor) -> tuple[Tensor, bool]:
    """Of all workers, added up in rank order; and whether it is finite."""
    total = copy_of(estimates[0])
    for estimate in estimates[1:].unbind():
        total += estimate
    return total, divide_finite(total, len(estimates))


def _news(mean: Tensor, before: Tensor) -> Payload:
    """The entries of the mean that are others than before, or all of it, whichever is encoded in fewer bytes."""
    indices = (mean != before).nonzero().view(-1)
    return smaller(Sparse(mean.numel(), indices, Dense(mean[indices])), Dense(mean))


def _told(news: Payload, before: Tensor) -> Tensor:
    """The mean by what the server says of it; where it says nothing it is as before."""
    if not isinstance(news, Sparse):
        return news.to_dense()
    mean = copy_of(before)
    scatter_write(news.indices, news.kept(), mean)
    return mean
