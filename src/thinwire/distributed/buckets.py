"""Which memory belongs to which bucket of DDP, however DDP cuts its buckets."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from thinwire.distributed.policy import PartlyDense
from thinwire.layout import Granularity, Layout, PerTensor, Whole
from thinwire.methods import GradientAveraging
from thinwire.random import Key
from thinwire.worker.channel import Channel
from thinwire.worker.step_times import StepClock


@dataclass(slots=True, eq=False)
class BucketChannels:
    """A channel for each bucket, its memory known by the names of parameters.

    Args:
        method: what is exchanged and how.
        names: of all parameters, in the model's order.
        dense: those that are sent in full.
        key: addresses the exchanges' randomness.
        rank: this process.
        size: number of processes.
        clock: what the time of compression is measured by, if it is.
    """

    method: GradientAveraging
    names: Sequence[str]
    dense: frozenset[str]
    key: Key
    rank: int
    size: int
    clock: StepClock | None
    _places: dict[str, int] = field(init=False)
    _channels: dict[tuple[str, ...], Channel] = field(init=False, default_factory=dict)
    # What was loaded, or is of buckets that are no more, until a bucket with the parameter comes.
    _waiting: dict[str, Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._places = {name: place for place, name in enumerate(self.names)}

    def of(self, named: Mapping[str, Tensor]) -> Channel:
        """The channel of a bucket; where DDP has cut other buckets, with the memory of the same parameters."""
        # Compressed parameters come first, those that are sent in full after them.
        names = tuple(sorted(named, key=lambda name: (name in self.dense, self._places[name])))
        channel = self._channels.get(names)
        if channel is None:
            layout = Layout(names, tuple(named[name].shape for name in names))
            channel = Channel(self.fitted(layout), layout, [], self.rank, self.size, self.key.fold(names[0]))
            # A parameter is in one bucket: buckets that had one of these are no more.
            for old in [old for old in self._channels if not set(old).isdisjoint(names)]:
                self._waiting |= _tensors_of(self._channels.pop(old))
            _restore(channel, self._waiting)
            channel.clock = self.clock
            self._channels[names] = channel
        return channel

    def fitted(self, layout: Layout) -> GradientAveraging:
        """The method for one bucket, whose last tensors are sent in full."""
        method = dataclasses.replace(self.method, granularity=_within_buckets(self.method.granularity))
        dense = sum(name in self.dense for name in layout.names)
        if method.exchange.needs_linear or not dense:
            return method
        count = len(layout.names) - dense
        compressed = Layout(layout.names[:count], layout.shapes[:count])
        segments = method.granularity.segments(compressed)
        partly = functools.partial(PartlyDense, segments=segments, num_dense=layout.numel - compressed.numel)
        warm_up = method.warm_up
        if warm_up is not None:
            warm_up = dataclasses.replace(warm_up, compressors=tuple(map(partly, warm_up.compressors)))
        return dataclasses.replace(method, compressor=partly(method.compressor), warm_up=warm_up, granularity=Whole())

    def tensors(self) -> dict[str, Tensor]:
        """Copies of every vector of the memories and the exchanges, by ``part.kind.parameter``."""
        found = dict(self._waiting)
        for channel in self._channels.values():
            found |= _tensors_of(channel)
        return {name: tensor.clone() for name, tensor in found.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with what :meth:`tensors` gave, and with nothing else."""
        self._channels = {}
        self._waiting = {name: tensor.clone() for name, tensor in tensors.items()}


def _within_buckets(granularity: Granularity) -> Granularity:
    return PerTensor() if isinstance(granularity, Whole) else granularity


def _tensors_of(channel: Channel) -> dict[str, Tensor]:
    """Every vector of the memory and the exchange, by ``part.kind.parameter``."""
    return {
        f"{part}.{kind}.{name}": view
        for part, state in (("memory", channel.memory), ("exchange", channel.exchange))
        for kind, flat in state.items()
        if flat.shape == (channel.layout.numel,)
        for name, view in channel.layout.unflatten(flat).items()
    }


def _restore(channel: Channel, known: dict[str, Tensor]) -> None:
    """Fill the state of a new channel from tensors by name, which are used up; what is not known is as it begins."""
    for name, view in _tensors_of(channel).items():
        if name in known:
            view.copy_(known.pop(name))
