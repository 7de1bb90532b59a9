"""What compression does to each parameter tensor, sampled during training."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from thinwire.arrays import CPU, to_device
from thinwire.errors import ConfigError
from thinwire.files import StrPath, append_text
from thinwire.layout import Segments
from thinwire.payloads import Concat, Payload, SeededSparse, Sparse, Sum
from thinwire.wire import encoded_num_bytes
from thinwire.worker.channel import Channel, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """What one exchange did to one parameter tensor on one worker.

    ``u`` is what was to be sent of the tensor, with what the memory added; ``q`` is what the receivers of the message
    decode. What is not defined is None: anything relative to a ``u`` of zeros, the angle to a ``q`` of zeros.

    Args:
        step: the training step, counted from 1.
        rank: the worker.
        name: the parameter's; one that is split into fragments has a record for each piece.
        numel: entries.
        message_bytes: its share of the worker's message, see :func:`byte_shares`.
        relative_error: ``||u - q|| / ||u||``.
        residual_norm: ``||m||`` of the residual that is kept for the next exchange; None without such a memory.
        cosine: of the angle between ``q`` and ``u``, which would be sent if nothing were compressed.
        density: share of the entries of ``q`` that are not 0.
    """

    step: int
    rank: int
    name: str
    numel: int
    message_bytes: float
    relative_error: float | None
    residual_norm: float | None
    cosine: float | None
    density: float

    def numbers(self) -> dict[str, float]:
        """All that is defined and may change from exchange to exchange, as ``relative_error/NAME`` and so on."""
        each = {
            "message_bytes": self.message_bytes, "relative_error": self.relative_error,
            "residual_norm": self.residual_norm, "cosine": self.cosine, "density": self.density,
        }  # fmt: skip
        return {f"{kind}/{self.name}": value for kind, value in each.items() if value is not None}


class LayerSink(Protocol):
    """Where records go."""

    def write(self, records: Sequence[LayerRecord]) -> None:
        """Take the records of one exchange, in the order of the parameters."""
        ...


@dataclass(frozen=True, slots=True)
class JsonLines:
    """Appends one JSON object a record to a file, which is made if it is not there; None is written as null.

    Args:
        path: such as ``layers.jsonl``.
    """

    path: StrPath

    def write(self, records: Sequence[LayerRecord]) -> None:
        """Append the records; nobody who reads the file meanwhile sees half a line of them.

        Raises:
            ConfigError: the file cannot be written.
        """
        append_text(self.path, "".join(f"{json.dumps(dataclasses.asdict(record))}\n" for record in records))


class ScalarWriter(Protocol):
    """What is asked of ``torch.utils.tensorboard.SummaryWriter``."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Keep a number of a step."""
        ...


@dataclass(frozen=True, slots=True)
class Scalars:
    """Hands each number to a writer of TensorBoard, or to anything like it, by its name in :meth:`LayerRecord.numbers`.

    Args:
        writer: such as ``torch.utils.tensorboard.SummaryWriter()``.
        prefix: begins every tag.
    """

    writer: ScalarWriter
    prefix: str = ""

    def write(self, records: Sequence[LayerRecord]) -> None:
        """One scalar for every number that is defined."""
        for record in records:
            for name, value in record.numbers().items():
                self.writer.add_scalar(f"{self.prefix}{name}", value, record.step)


class ExchangeWatcher(Protocol):
    """Looks at exchanges of one worker or of several."""

    def is_due(self, number: int, rank: int) -> bool:
        """Whether exchange ``number`` (of each fragment) of worker ``rank`` is watched, counted from 0."""
        ...

    def take(self, channel: Channel, outcome: Outcome, step: int) -> None:
        """An exchange that the channel has accepted, which has not gathered anew; ``intended`` if it was watched."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """Which exchanges are looked at, and where the records go.

    A sampled exchange costs a few passes over the vector, one that is not sampled nothing.

    Args:
        sink: takes the records.
        every: the first exchange is sampled and every ``every``-th from there; of fragments, a whole round of them.
        ranks: workers that report; each writes to a sink of its own process.

    Raises:
        ConfigError: ``every`` below 1, or nobody who reports.
    """

    sink: LayerSink
    every: int = 100
    ranks: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.every < 1 or not self.ranks:
            raise ConfigError(
                f"a report of every {self.every} exchanges by the workers {self.ranks} was asked for; give every=1 or "
                "more, and at least one worker"
            )

    def is_due(self, number: int, rank: int) -> bool:
        """Whether worker ``rank`` reports on exchange ``number`` (of each fragment), counted from 0."""
        return number % self.every == 0 and rank in self.ranks

    def take(self, channel: Channel, outcome: Outcome, step: int) -> None:
        """Report on a watched exchange; call it once the channel has accepted it, before it gathers anew."""
        if outcome.intended is not None:
            self.sink.write(layer_records(channel, outcome, outcome.intended, step))


def layer_records(channel: Channel, outcome: Outcome, intended: Tensor, step: int) -> list[LayerRecord]:
    """One record for each tensor of the channel, in layout order; norms and products are taken in float64."""
    layout = channel.layout
    aggregate = outcome.aggregate
    shares = byte_shares(aggregate.sent, Segments.of_sizes(layout.sizes), aggregate.message_bytes)
    residual = None if outcome.memory is None else outcome.memory.get("residual")
    kept = [None] * len(layout.names) if residual is None else layout.views(residual)
    records = []
    views = zip(layout.views(intended), layout.views(aggregate.sent.to_dense()), kept, strict=True)
    for name, num_bytes, (meant, sent, left) in zip(layout.names, shares.tolist(), views, strict=True):
        u, q = meant.double(), sent.double()
        length, sent_length = float(u.norm()), float(q.norm())
        records.append(
            LayerRecord(
                step=step, rank=channel.rank, name=name, numel=u.numel(), message_bytes=num_bytes,
                relative_error=_ratio(float((u - q).norm()), length),
                residual_norm=None if left is None else _finite(float(left.double().norm())),
                cosine=_ratio(float((u * q).sum()), length * sent_length),
                density=int(q.count_nonzero()) / max(q.numel(), 1),
            )
        )  # fmt: skip
    return records


def byte_shares(sent: Payload, tensors: Segments, num_bytes: int) -> Tensor:
    """How many of a message's bytes are each tensor's: f64 ``[tensors.count]``, which add up to ``num_bytes``.

    A list of entries is divided in proportion to the entries that it has of each tensor, anything else in proportion
    to the tensors' lengths; of a message of several parts each is divided alone, with the bytes that it takes. What
    belongs to no entry (header, checksum, tables) is divided with the rest. So entries that an entropy code makes
    short count as much as long ones of the same part.

    Args:
        sent: the decoded message, for ``tensors.numel`` entries.
        tensors: the segments of the vector, one for each tensor.
        num_bytes: what is divided.

    Example:
        >>> from thinwire.payloads import Dense
        >>> sparse = Sparse(6, torch.tensor([0, 1, 5]), Dense(torch.ones(3)))
        >>> byte_shares(sparse, Segments.of_sizes([3, 3]), 30).tolist()
        [20.0, 10.0]
    """
    offsets = tensors.offsets()
    parts = _parts(sent, 0)
    sizes = [1.0] if len(parts) == 1 else [float(encoded_num_bytes(part)) for part, _ in parts]
    scale = num_bytes / sum(sizes)
    shares = torch.zeros(tensors.count, dtype=torch.float64, device=CPU)
    for (part, begin), size in zip(parts, sizes, strict=True):
        counts = _counts(part, begin, offsets)
        shares += counts * (size * scale / max(float(counts.sum()), 1.0))
    return shares


def _parts(payload: Payload, begin: int) -> list[tuple[Payload, int]]:
    """What a message consists of, and where in the vector each part begins."""
    found = []
    match payload:
        case Concat(parts):
            for part in parts:
                found += _parts(part, begin)
                begin += part.numel
        case Sum(parts):
            for part in parts:
                found += _parts(part, begin)
        case _:
            found.append((payload, begin))
    return found


def _counts(part: Payload, begin: int, offsets: Tensor) -> Tensor:
    """How many entries a part has of each tensor: f64."""
    listed = part.sparse() if isinstance(part, SeededSparse) else part
    if isinstance(listed, Sparse) and listed.indices.numel():
        indices = listed.indices.contiguous() + begin
        places = torch.searchsorted(indices, to_device(offsets, indices.device)).cpu()
    else:
        places = (offsets - begin).clamp(0, part.numel)
    return places.diff().double()


def _ratio(value: float, unit: float) -> float | None:
    return _finite(value / unit) if unit else None


def _finite(value: float) -> float | None:
    """JSON has no NaN and no inf."""
    return value if math.isfinite(value) else None
