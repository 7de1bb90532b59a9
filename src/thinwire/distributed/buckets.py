"""Which memory belongs to which bucket of DDP, whatever DDP's buckets are."""

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch.distributed as dist
from torch import Tensor, nn

from thinwire.compressors import Identity
from thinwire.distributed.dense_policy import PartlyDense
from thinwire.layout import Granularity, Layout, PerTensor, Whole
from thinwire.methods import GradientAveraging
from thinwire.random import Key
from thinwire.worker.channel import Channel
from thinwire.worker.keeper import Keeper
from thinwire.worker.parameters import plain_name
from thinwire.worker.step_times import StepClock

_DEFAULT_NUM_BYTES = 25 << 20
"""DDP's, unless it is told otherwise."""

Cut = tuple[str, ...]
"""The names of a bucket's parameters: first those that are compressed, then those that are sent in full."""


@dataclass(frozen=True, slots=True)
class BucketSizes:
    """How DDP cuts the gradients into buckets: the first is closed when it has so many bytes, each other likewise.

    Example:
        >>> sizes = {"a": 10, "b": 30, "c": 5, "d": 20}
        >>> BucketSizes(first=10, following=40).cut(sizes)
        [['d'], ['c', 'b', 'a']]
    """

    first: int
    following: int

    @staticmethod
    def of(model: nn.Module) -> "BucketSizes | None":
        """Those that a DDP was made with; None where each bucket has a size of its own."""
        made = vars(model)
        if made.get("bucket_bytes_cap_list"):
            return None
        following = int(made.get("bucket_bytes_cap", _DEFAULT_NUM_BYTES))
        is_default = made.get("bucket_bytes_cap_default", following == _DEFAULT_NUM_BYTES)
        return BucketSizes(dist._DEFAULT_FIRST_BUCKET_BYTES if is_default else following, following)

    def are_several(self, sizes: Mapping[str, int]) -> bool:
        """Whether a bucket has what DDP will make several of: in the first step it has one for all."""
        return sum(sizes.values()) >= self.following + max(sizes.values())

    def cut(self, sizes: dict[str, int]) -> list[list[str]]:
        """Tensors of so many bytes, in the model's order, as buckets, where the last one has its gradient first."""
        buckets: list[list[str]] = [[]]
        filled, most = 0, self.first
        for name, size in reversed(sizes.items()):
            if filled >= most:
                buckets.append([])
                filled, most = 0, self.following
            buckets[-1].append(name)
            filled += size
        return buckets


@dataclass(slots=True, eq=False)
class BucketChannels:
    """A channel for each bucket, its memory known by the names of parameters.

    In its first step DDP has one bucket for all. It is exchanged in parts, those that DDP will make of it if gradients
    come in the order of layers: so their memories stay, and none is as long as the model. After a restart
    a bucket is cut as it was when the state was saved, so that a method draws the same numbers, and finds again what it
    keeps of a bucket as a whole.

    Args:
        method: what is exchanged and how.
        names: of all parameters, in the model's order.
        dense: those that are sent in full.
        key: addresses the exchanges' randomness.
        rank: this process.
        size: number of processes.
        clock: what the time of compression is measured by, if it is.
        bucket_sizes: DDP's, if its first bucket may be all that there is.
        sums_stay: whether sums are made on the device.
    """

    method: GradientAveraging
    names: Sequence[str]
    dense: frozenset[str]
    key: Key
    rank: int
    size: int
    clock: StepClock | None
    bucket_sizes: BucketSizes | None = None
    sums_stay: bool = False
    _places: dict[str, int] = field(init=False)
    # There waits what was loaded, or is of buckets that are no more, until a bucket with the parameter comes.
    _keeper: Keeper = field(init=False, default_factory=lambda: Keeper(None))
    _loaded: list[Cut] = field(init=False, default_factory=list)
    _warned: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._places = {name: place for place, name in enumerate(self.names)}

    def of(self, named: Mapping[str, Tensor]) -> list[Channel]:
        """The channels of a bucket: its own, or those that its parameters had when the state was saved."""
        known = [cut for cut in self._loaded if not named.keys().isdisjoint(cut)]
        cuts = known if named.keys() == set(itertools.chain(*known)) else self._cuts(named)
        return [self._known(cut) or self._new(cut, named) for cut in cuts]

    def _cuts(self, named: Mapping[str, Tensor]) -> list[Cut]:
        sizes = {name: named[name].nbytes for name in sorted(named, key=self._places.__getitem__)}
        if self.bucket_sizes is None or not self.bucket_sizes.are_several(sizes):
            return [self._cut(named)]
        return [self._cut(names) for names in self.bucket_sizes.cut(sizes)]

    def _cut(self, names: Iterable[str]) -> Cut:
        return tuple(sorted(names, key=lambda name: (name in self.dense, self._places[name])))

    def _known(self, cut: Cut) -> Channel | None:
        return next((channel for channel in self._keeper.channels if channel.layout.names == cut), None)

    def _new(self, cut: Cut, named: Mapping[str, Tensor]) -> Channel:
        layout = Layout(cut, tuple(named[name].shape for name in cut))
        key, device = self.key.fold(cut[0]), named[cut[0]].device
        channel = Channel(self.fitted(layout), layout, [], self.rank, self.size, key, device)
        # A parameter is in one bucket: buckets that had one of these are no more.
        gone = [old for old in self._keeper.channels if not set(old.layout.names).isdisjoint(cut)]
        self._keeper.park(gone)
        self._give_up(channel)
        self._keeper.add([channel])
        channel.clock, channel.sums_stay = self.clock, self.sums_stay
        return channel

    def _give_up(self, channel: Channel) -> None:
        """Leave what waits of another cut's regions, or is of parameters where this channel's is of a region."""
        cut, waiting = channel.layout.names, self._keeper.waiting
        other_cut = [name for name in waiting if name.partition(".#")[2] in cut and cut not in self._loaded]
        new = Keeper(None)
        new.add([channel])
        regions = [name.partition("#")[0] for name in new.live() if ".#" in name]
        whole = [name for name in (kind + parameter for kind in regions for parameter in cut) if name in waiting]
        lost = {name.split(".")[1] for name in (*other_cut, *whole) if waiting.pop(name).any()}
        if lost and not self._warned:
            self._warned = True
            warnings.warn(
                f"what {self.method} kept for regions of DDP's former buckets ({', '.join(sorted(lost))}) is lost, "
                "once: DDP makes new buckets after its first step. thinwire.synchronize, without DDP, loses nothing",
                stacklevel=2,
            )

    def retrain(self, names: Sequence[str], dense: frozenset[str], gone: frozenset[str]) -> None:
        """Go on with other parameters: what these have kept waits until they come again.

        Args:
            names: of all parameters now.
            dense: those that are sent in full.
            gone: names whose parameters are no more, or others; what was kept of them is forgotten.
        """
        kept = self.tensors()
        cuts = [cut for cut in self.cuts() if gone.isdisjoint(cut)]
        self.names, self.dense = names, dense
        self._places = {name: place for place, name in enumerate(names)}
        self.load({name: tensor for name, tensor in kept.items() if parameter_of(name) not in gone}, cuts)

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
        if not count:  # there is nothing to compress, of which a compressor might refuse to keep some
            return dataclasses.replace(method, compressor=partly(Identity()), warm_up=None, granularity=Whole())
        warm_up = method.warm_up
        if warm_up is not None:
            warm_up = dataclasses.replace(warm_up, compressors=tuple(map(partly, warm_up.compressors)))
        return dataclasses.replace(method, compressor=partly(method.compressor), warm_up=warm_up, granularity=Whole())

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all that the memories and the exchanges keep."""
        return {name: tensor.clone() for name, tensor in self._keeper.tensors().items()}

    def cuts(self) -> list[list[str]]:
        """The names of each bucket's parameters."""
        return [list(channel.layout.names) for channel in self._keeper.channels] or [list(cut) for cut in self._loaded]

    def load(self, tensors: Mapping[str, Tensor], cuts: Iterable[Iterable[str]]) -> None:
        """Go on with what :meth:`tensors` and :meth:`cuts` gave, and with nothing else."""
        self._keeper = Keeper(None)
        self._keeper.waiting = {name: tensor.clone() for name, tensor in tensors.items()}
        self._loaded = [self._cut(cut) for cut in cuts]


def _within_buckets(granularity: Granularity) -> Granularity:
    return PerTensor() if isinstance(granularity, Whole) else granularity


def parameter_of(name: str) -> str:
    """The parameter that a saved tensor is of, or the first one of its bucket.

    Example:
        >>> parameter_of("memory.residual.0.weight"), parameter_of("exchange.residual.#0.weight")
        ('0.weight', '0.weight')
    """
    return name.split(".", 2)[2].removeprefix("#")


def plain_key(name: str) -> str:
    """A saved tensor's name without the marks of wrappers.

    Example:
        >>> plain_key("memory.residual._orig_mod.0.weight"), plain_key("exchange.residual.#_orig_mod.0.weight")
        ('memory.residual.0.weight', 'exchange.residual.#0.weight')
    """
    part, kind, rest = name.split(".", 2)
    mark = "#" if rest.startswith("#") else ""
    return f"{part}.{kind}.{mark}{plain_name(rest.removeprefix('#'))}"
