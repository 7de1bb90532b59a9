"""Between a model's named tensors and the one flat vector that is compressed, and the segments of that vector."""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from thinwire.arrays import CPU, empty
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.memo import Memo

State: TypeAlias = dict[str, Tensor]
"""Named tensors that a worker owns on behalf of one of its parts, which keeps nothing else.

A tensor has an entry for each of the layout, or is called ``kind.parameter`` after the one that it belongs to; what is
neither is bound to the worker and to the segments of the vector.
"""


@dataclass(frozen=True, slots=True)
class Segments:
    """A vector of ``numel`` entries split into consecutive segments, each compressed on its own.

    Either every segment has ``length`` entries (the last one may be shorter), or ``sizes`` lists them.

    Example:
        >>> Segments.uniform(10, 4).offsets().tolist()
        [0, 4, 8, 10]
        >>> Segments.of_sizes([3, 0, 2]).offsets().tolist()
        [0, 3, 3, 5]
    """

    numel: int
    length: int = 0
    sizes: tuple[int, ...] | None = None

    @staticmethod
    def whole(numel: int) -> "Segments":
        """One segment that holds the whole vector."""
        return Segments(numel, length=max(numel, 1))

    @staticmethod
    def uniform(numel: int, length: int) -> "Segments":
        """Segments of ``length`` entries each; the last one may be shorter."""
        if length < 1:
            raise ConfigError(f"a segment length of {length} was given; it must be at least 1")
        return Segments(numel, length=min(length, max(numel, 1)))

    @staticmethod
    def of_sizes(sizes: Iterable[int]) -> "Segments":
        """Segments of the given sizes, in order; a size may be 0."""
        listed = tuple(sizes)
        if any(size < 0 for size in listed):
            raise ConfigError(f"segment sizes must not be negative, got {min(listed)}")
        return Segments(sum(listed), sizes=listed)

    @property
    def count(self) -> int:
        """Number of segments (0 for an empty vector of uniform segments)."""
        return len(self.sizes) if self.sizes is not None else -(-self.numel // self.length)

    def offsets(self) -> Tensor:
        """Where the segments begin, and the end: int64 of shape ``[count + 1]``; shared, do not write to it."""
        return _offsets(self) if self.count <= _FEW else _MANY_OFFSETS(self)

    def distinct_sizes(self) -> tuple[int, ...]:
        """The different sizes that occur, ascending, without 0."""
        if self.sizes is not None:
            return tuple(sorted({size for size in self.sizes if size > 0}))
        full, rest = divmod(self.numel, self.length)
        sizes = {rest} if rest else set()
        return tuple(sorted(sizes | {self.length})) if full else tuple(sizes)


def _make_offsets(segments: Segments) -> Tensor:
    if segments.sizes is not None:
        ends = torch.tensor(segments.sizes, dtype=torch.int64, device=CPU).cumsum(0)
        return torch.cat([torch.zeros(1, dtype=torch.int64, device=CPU), ends])
    starts = torch.arange(0, segments.numel, segments.length, dtype=torch.int64, device=CPU)
    return torch.cat([starts, torch.tensor([segments.numel], dtype=torch.int64, device=CPU)])


def _num_bytes(segments: Segments, offsets: Tensor) -> int:
    return offsets.nbytes + _NUM_BYTES_OF_SIZE * len(segments.sizes or ())


_FEW = 1024
"""Up to so many segments the offsets are kept in a cache that counts results, which is quicker than one of bytes."""

_NUM_BYTES_OF_SIZE = 40
"""What a listed size takes as a Python integer in a tuple."""

_offsets = functools.lru_cache(maxsize=256)(_make_offsets)
_MANY_OFFSETS = Memo(_make_offsets, _num_bytes, 1 << 26)


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and shapes of the tensors that make up a flat vector, in order.

    Example:
        >>> layout = Layout(("w", "b"), (torch.Size([2, 3]), torch.Size([2])))
        >>> flat = layout.flatten([torch.ones(2, 3), torch.zeros(2)])
        >>> flat.shape, layout.unflatten(flat)["b"].tolist()
        (torch.Size([8]), [0.0, 0.0])
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @staticmethod
    def of(named: Mapping[str, Tensor]) -> "Layout":
        """The layout of named tensors, in their own order."""
        return Layout(tuple(named), tuple(tensor.shape for tensor in named.values()))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def numel(self) -> int:
        """Number of entries of all tensors together."""
        return sum(self.sizes)

    def flatten(self, tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        """Concatenate the tensors, in layout order, into ``out`` (or a new f32 vector ``[numel]``)."""
        out = empty(self.numel, tensors[0].device if tensors else CPU) if out is None else out
        torch.cat([tensor.detach().reshape(-1) for tensor in tensors], out=out)
        return out

    def views(self, flat: Tensor) -> list[Tensor]:
        """Views of ``flat`` in the shapes of the tensors, in layout order."""
        return [part.view(shape) for part, shape in zip(torch.split(flat, list(self.sizes)), self.shapes, strict=True)]

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of ``flat`` by tensor name."""
        return dict(zip(self.names, self.views(flat), strict=True))


def views_like(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Views of ``flat`` in the shapes of ``tensors``, in order: :meth:`Layout.views` at a fraction of its cost.

    Example:
        >>> [view.shape for view in views_like(torch.zeros(5), [torch.empty(1, 3), torch.empty(2)])]
        [torch.Size([1, 3]), torch.Size([2])]
    """
    # The same torch function that gathers DDP's buckets; it slices in C++.
    return list(torch._C._nn.unflatten_dense_tensors(flat, list(tensors)))


@runtime_checkable
class Granularity(Protocol):
    """Into which segments a flat vector is split; each is compressed on its own."""

    def segments(self, layout: Layout) -> Segments:
        """The segments of the vector that ``layout`` describes."""
        ...


@register
@dataclass(frozen=True, slots=True)
class Whole:
    """One segment: a global top-k, one scale for everything."""

    def segments(self, layout: Layout) -> Segments:
        """A single segment."""
        return Segments.whole(layout.numel)


@register
@dataclass(frozen=True, slots=True)
class PerTensor:
    """One segment for each parameter tensor ("layer-wise", "piecewise" in Qsparse-local-SGD)."""

    def segments(self, layout: Layout) -> Segments:
        """As many segments as tensors."""
        return Segments.of_sizes(layout.sizes)


@register
@dataclass(frozen=True, slots=True)
class PerRow:
    """One segment for each row of a weight matrix, the weights of one output; one for each tensor of one dimension.

    Example:
        >>> PerRow().segments(Layout(("w", "b"), (torch.Size([2, 3, 4]), torch.Size([2])))).sizes
        (12, 12, 2)
    """

    def segments(self, layout: Layout) -> Segments:
        """As many segments as rows."""
        counts = [shape[0] if len(shape) > 1 else 1 for shape in layout.shapes]
        each = zip(counts, layout.sizes, strict=True)
        return Segments.of_sizes(size // rows for rows, size in each for _ in range(rows))


@register
@dataclass(frozen=True, slots=True)
class Chunks:
    """Segments of ``length`` entries across tensor borders ("buckets" in QSGD); the last may be shorter."""

    length: int

    def __post_init__(self) -> None:
        check_types(self)
        if self.length < 1:
            raise ConfigError(f"chunks of {self.length} entries were asked for; at least 1 is needed")

    def segments(self, layout: Layout) -> Segments:
        """Segments of equal length."""
        return Segments.uniform(layout.numel, self.length)
