"""Every worker gets every message."""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from thinwire.arrays import to_device, zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context, Exchange
from thinwire.exchanges.reading import MessageReader
from thinwire.kernels.flat.finite import divide_finite, is_finite
from thinwire.kernels.reduce.segment_sums import segment_sums
from thinwire.kernels.sparse.merge import unite_means
from thinwire.layout import Segments, State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.payloads import Dense, Payload, Sparse
from thinwire.payloads.entries import entries, num_entries
from thinwire.steps import Steps, all_gather
from thinwire.wire import encode

_FEW = 8


def is_few(count: int, numel: int) -> bool:
    """Whether a mean of ``count`` entries of ``numel`` is sparse: indices and values are quicker than the vector.

    Example:
        >>> is_few(1, 8), is_few(2, 8)
        (True, False)
    """
    return count * _FEW <= numel


@register
@dataclass(frozen=True, slots=True)
class Gather:
    """Mean of all decoded messages, added up in rank order: P - 1 messages sent and received by each worker.

    Args:
        mean: ``"all"``: the sum over P. ``"contributors"``: each entry's sum over the number of workers whose message
            has it, 0 where nobody's has (SparseLoCo's published code; an entry that one worker sent moves by P times
            as much as under ``"all"``).
        clip: ``"none"``; ``"median"``: before the mean, each worker's part of each tensor is scaled to a norm of at
            most the (lower) median of the workers' norms of it (SparseLoCo's published code).
        weights: ``"alike"``; ``"norm"``: vector ``d_i`` has the weight ``exp(-||d_i||) / sum_j exp(-||d_j||)``, so that
            a worker that went astray counts for less (EDiT; Cheng et al. 2025).
        max_norm: the mean is scaled to a norm of at most so much.

    Raises:
        ConfigError: an unknown ``mean``, ``clip`` or ``weights``, a ``max_norm`` that is not above 0, or weights with
            a mean over contributors.
    """

    mean: Literal["all", "contributors"] = "all"
    clip: Literal["none", "median"] = "none"
    weights: Literal["alike", "norm"] = "alike"
    max_norm: float | None = None

    needs_linear: ClassVar[bool] = False
    """Messages are decoded before they are added."""

    workers_agree: ClassVar[bool] = True
    """All add up the same vectors in the same order."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.max_norm is not None and not self.max_norm > 0.0:
            raise ConfigError(f"a mean of a norm of at most {self.max_norm} was asked for; it must be above 0")
        if self.weights != "alike" and self.mean != "all":
            raise ConfigError(f"weights={self.weights} are of whole vectors; leave out mean={self.mean}")

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered."""
        return {}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """One all-gather."""
        sent = sender.compress(x, ctx.key, ctx.segments)
        message = encode(sent)
        combine: Callable[[Sequence[Tensor]], tuple[Tensor | Sparse, bool]]
        combine = functools.partial(_mean, reader=ctx.reader)
        if self != Gather():
            combine = functools.partial(_robust_mean, reader=ctx.reader, gather=self, sizes=ctx.layout.sizes)
        result, finite = yield from all_gather(message, combine, ctx.max_num_bytes)
        return Aggregate(result, finite, message.numel(), sent, ctx.size)


def has_sparse_means(exchange: Exchange) -> bool:
    """Whether the exchange's mean is sparse where messages say something of few entries.

    Example:
        >>> has_sparse_means(Gather()), has_sparse_means(Gather(mean="contributors"))
        (True, False)
    """
    return exchange == Gather()


def _mean(messages: Sequence[Tensor], reader: MessageReader) -> tuple[Tensor | Sparse, bool]:
    """:meth:`MessageReader.mean`, sparse where the messages together say something of few entries."""
    decoded = reader.parts(messages)
    payloads: deque[Payload | None] = deque()
    count = 0
    for payload in decoded:
        payloads.append(payload)
        count += num_entries(payload)
        if not is_few(count, reader.numel):
            payloads.append(None)
            # Each is kept no longer than it takes to be added.
            return reader.mean_of(itertools.chain(iter(payloads.popleft, None), decoded), len(messages))
    places, values = zip(*map(entries, filter(None, payloads)), strict=True)
    indices, means, finite = unite_means(places, values, reader.numel, len(payloads))
    return Sparse(reader.numel, indices, Dense(means)), finite


def _robust_mean(
    messages: Sequence[Tensor], reader: MessageReader, gather: Gather, sizes: Sequence[int]
) -> tuple[Tensor, bool]:
    """:meth:`MessageReader.mean`, of clipped or weighted vectors, over contributors, or clipped itself."""
    payloads = list(reader.parts(messages))
    total, finite = _combined(payloads, reader, gather, sizes)
    if gather.max_norm is not None and finite:
        norm = float(segment_sums(total, Segments.whole(total.numel()).offsets(), 2).sum().sqrt())
        if norm > gather.max_norm:
            total *= gather.max_norm / norm
    return total, finite


def _combined(
    payloads: Sequence[Payload], reader: MessageReader, gather: Gather, sizes: Sequence[int]
) -> tuple[Tensor, bool]:
    factors: list[Tensor | None] = [None] * len(payloads)
    if gather.clip == "median":
        factors = _clip_factors(payloads, Segments.of_sizes(sizes))
    if gather.weights == "norm":
        return _weighted(payloads, reader, factors)
    by_entry = gather.mean == "contributors"
    total, counts = (zeros(reader.numel, reader.device) for _ in range(2))
    for payload, factor in zip(payloads, factors, strict=True):
        if factor is None:
            payload.add_to(total)
        else:
            total += payload.to_dense() * factor
        if by_entry:
            _count(payload, counts)
    if not by_entry:
        return total, divide_finite(total, len(payloads))
    total /= counts.clamp_(min=1.0)
    return total, is_finite(total)


def _weighted(
    payloads: Sequence[Payload], reader: MessageReader, factors: Sequence[Tensor | None]
) -> tuple[Tensor, bool]:
    """The mean with weights that fall with the norm of a vector, once it is clipped."""
    dense = [
        payload.to_dense() if factor is None else payload.to_dense() * factor
        for payload, factor in zip(payloads, factors, strict=True)
    ]
    offsets = Segments.whole(reader.numel).offsets()
    norms = torch.stack([segment_sums(each, offsets, 2).sum().sqrt() for each in dense])
    total = zeros(reader.numel, reader.device)
    for each, weight in zip(dense, torch.softmax(-norms.double().cpu(), dim=0).tolist(), strict=True):
        total += each * weight
    return total, is_finite(total)


def _clip_factors(payloads: Sequence[Payload], tensors: Segments) -> list[Tensor | None]:
    """f32 ``[numel]`` for each worker: what brings its norm of each tensor down to the workers' median."""
    offsets = tensors.offsets()
    norms = torch.stack([segment_sums(payload.to_dense(), offsets, 2).sqrt() for payload in payloads])
    if not torch.isfinite(norms).all():
        return [None] * len(payloads)  # nobody will go on with the mean
    limits = norms.median(dim=0).values
    factors = torch.where(norms > limits, limits / norms, 1.0).to(torch.float32)
    return [
        each.repeat_interleave(to_device(offsets.diff(), each.device), output_size=tensors.numel) for each in factors
    ]


def _count(payload: Payload, counts: Tensor) -> None:
    """Add 1 where the message has an entry: what a sparse one kept, what is not zero in any other."""
    if isinstance(payload, Sparse):
        counts[payload.indices] += 1.0  # each is listed once
    else:
        counts += payload.to_dense() != 0
