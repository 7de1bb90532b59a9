"""A shard of a layer as FSDP2 sends it, one parameter after another, and the vector that is compressed for it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from thinwire.arrays import empty, to_device
from thinwire.distributed.buckets import BucketChannels
from thinwire.distributed.meeting import group_device
from thinwire.distributed.sharded.sharded_model import ShardedModel
from thinwire.errors import ConfigError
from thinwire.exchanges.reading import MessageReader
from thinwire.exchanges.recompression import max_relayed_num_bytes, relayed_kinds
from thinwire.layout import Layout, Segments
from thinwire.methods import GradientAveraging, check_method
from thinwire.worker.parameters import local_part, model_device


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What of a layer one process has, padded to what each has at most, as a vector: first what is compressed.

    Args:
        method: for this vector, whose last entries are sent in full.
        layout: the parameters in the vector's order.
        starts: where each of them begins in FSDP2's order.
        segments: those of the vector that are compressed apart.
        device: where vectors lie.
    """

    method: GradientAveraging
    layout: Layout
    starts: Sequence[int]
    segments: Segments
    device: torch.device

    @staticmethod
    def of(names: Sequence[str], sizes: Sequence[int], buckets: BucketChannels, device: torch.device) -> "Row":
        """The row of parameters in FSDP2's order, of so many entries each."""
        begin = dict(zip(names, itertools.accumulate(sizes, initial=0), strict=False))
        numel = dict(zip(names, sizes, strict=True))
        ordered = sorted(names, key=lambda name: name in buckets.dense)
        layout = Layout(tuple(ordered), tuple(torch.Size([numel[name]]) for name in ordered))
        method = buckets.fitted(layout)
        return Row(method, layout, [begin[name] for name in ordered], check_method(method, layout), device)

    @property
    def numel(self) -> int:
        """Entries."""
        return self.layout.numel

    @property
    def max_num_bytes(self) -> int:
        """The longest message of it."""
        dense = 64 + 4 * self.numel  # a message in full, as the first one of weight differences
        return max(dense, max_relayed_num_bytes(self.method.compressor, self.segments))

    @property
    def reader(self) -> MessageReader:
        """What decodes messages of it."""
        return MessageReader(self.numel, relayed_kinds(self.method.compressor, self.segments), self.device)

    def ordered(self, flat: Tensor) -> Tensor:
        """The vector, f32, in new memory.

        Raises:
            ConfigError: FSDP2 has another number of entries there.
        """
        if flat.numel() != self.numel:
            raise ConfigError(
                f"FSDP2 has {flat.numel()} entries a process where {', '.join(self.layout.names)} have {self.numel}: "
                "some have no gradient, for which call model.set_reduce_scatter_unused_params(True), or it lays them "
                "out otherwise"
            )
        out = empty(self.numel, self.device)
        for view, start in zip(self.layout.views(out), self.starts, strict=True):
            view.copy_(flat[start : start + view.numel()])
        return out

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of a vector by parameter name, padding included."""
        return self.layout.unflatten(vector)

    def taken(self, tensors: dict[str, Tensor], prefix: str) -> Tensor | None:
        """The vector whose parts are called ``prefix`` and the parameter's name, which are taken out of ``tensors``.

        None if there is no part of it.

        Raises:
            ConfigError: there are others than the vector's, or of other shapes.
        """
        parts = {name: tensors.pop(prefix + name) for name in self.layout.names if prefix + name in tensors}
        if not parts:
            return None
        shapes = dict(zip(self.layout.names, self.layout.shapes, strict=True))
        if {name: part.shape for name, part in parts.items()} != shapes:
            wrong = next(name for name, shape in shapes.items() if name not in parts or parts[name].shape != shape)
            was = tuple(parts[wrong].shape) if wrong in parts else "nothing"
            raise ConfigError(
                f"the saved state is of another model: of {prefix}{wrong} it has {was}, here it is "
                f"{tuple(shapes[wrong])}"
            )
        return torch.cat([to_device(parts[name], self.device) for name in self.layout.names])

    def spread(self, vector: Tensor, flat: Tensor) -> None:
        """Write a vector to where FSDP2 has its entries, in its format."""
        for view, start in zip(self.layout.views(vector), self.starts, strict=True):
            flat[start : start + view.numel()].copy_(view)


class Rows:
    """The rows of one layer: of all its parameters, and of those that are trained.

    Args:
        model: sharded.
        layer: the layer's name.
        group: over which it is sharded.
    """

    def __init__(self, model: ShardedModel, layer: str, group: dist.ProcessGroup) -> None:
        self._model = model
        self.names = model.own_of(layer)
        own = [local_part(model.params[name].detach()).numel() for name in self.names]
        self.sizes = dict(zip(self.names, _most(own, group, model_device(model.params.values())), strict=True))
        self._made: dict[tuple[str, tuple[str, ...]], Row] = {}

    def all(self, buckets: BucketChannels, device: torch.device) -> Row:
        """The row of weights."""
        return self._row("weights", self.names, buckets, device)

    def trained(self, buckets: BucketChannels, device: torch.device) -> Row:
        """The row of gradients."""
        return self._row("gradients", [n for n in self.names if self._model.params[n].requires_grad], buckets, device)

    def check_order(self, flat: Tensor) -> None:
        """Raise :class:`ConfigError` if FSDP2 sends something else than these parameters in this order."""
        starts = itertools.accumulate(self.sizes.values(), initial=0)
        for name, start in zip(self.names, starts, strict=False):
            own = local_part(self._model.params[name].detach()).reshape(-1)
            sent = flat[start : start + own.numel()]
            if not torch.equal(sent, own.to(sent)):
                raise ConfigError(
                    f"FSDP2 of torch {torch.__version__} sends the parameters of a layer in an order that is not known "
                    f"here, found at {name!r}; compress between replicas only, with thinwire.compress_fsdp"
                )

    def _row(self, kind: str, names: Sequence[str], buckets: BucketChannels, device: torch.device) -> Row:
        place = kind, tuple(names)
        if place not in self._made:
            self._made[place] = Row.of(names, [self.sizes[name] for name in names], buckets, device)
        return self._made[place]


def _most(numels: Sequence[int], group: dist.ProcessGroup, device: torch.device) -> list[int]:
    """The largest of each on any process: FSDP2 pads what others have less of."""
    told = torch.tensor(list(numels), dtype=torch.int64, device=group_device(group, device))
    dist.all_reduce(told, op=dist.ReduceOp.MAX, group=group)
    return [int(each) for each in told.tolist()]
