"""The sum of several vectors."""

import itertools
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.errors import ConfigError
from thinwire.kernels.sample.halves import merge_marked, subset_marks
from thinwire.kernels.sparse.scatter import are_disjoint
from thinwire.payloads.base import Payload, add_dense
from thinwire.payloads.seeded_sparse import SeededSparse
from thinwire.payloads.sparse import Sparse
from thinwire.payloads.transfer import device_of


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """``parts[0] + parts[1] + ...``, at least one, all of one length; each sum is rounded to f32, in order.

    Example:
        >>> from thinwire.payloads import Dense
        >>> Sum((Dense(torch.tensor([1.0, 2.0])), Dense(torch.tensor([0.5, 0.0])))).to_dense().tolist()
        [1.5, 2.0]
    """

    parts: tuple[Payload, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("a sum of no payloads was given; at least one is needed")

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.parts[0].numel

    def to_dense(self) -> Tensor:
        """The parts, added up in order."""
        if _are_halves(self.parts):
            first, second = self.parts
            marks = subset_marks(first.key, first.segments.offsets(), first.kept.offsets().diff())
            return merge_marked(
                first.values.to_dense(), second.values.to_dense(), to_device(marks, device_of(first.values))
            )
        total = self.parts[0].to_dense()
        for part in self.parts[1:]:
            part.add_to(total)
        return total

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, in O(entries sent) where no entry is in two parts and all are sparse."""
        sparse = [part for part in self.parts if isinstance(part, Sparse)]
        if len(sparse) == len(self.parts) and _are_disjoint(sparse):
            for part in sparse:
                part.add_to(out, scale)
        else:
            add_dense(self.to_dense(), out, scale)


def _are_disjoint(parts: list[Sparse]) -> bool:
    return all(are_disjoint(one.indices, other.indices) for one, other in itertools.combinations(parts, 2))


def _are_halves(parts: tuple[Payload, ...]) -> TypeGuard[tuple[SeededSparse, SeededSparse]]:
    """Whether one key draws part of each segment, and the rest of it: then one draw does for both."""
    if len(parts) != 2:
        return False
    one, other = parts
    if not (isinstance(one, SeededSparse) and isinstance(other, SeededSparse)):
        return False
    if one.key != other.key or one.segments != other.segments:
        return False
    few, many = one.kept.offsets().diff(), other.kept.offsets().diff()
    # Two equal halves are drawn as the same set; of no entries both are none.
    return bool(((few != many) | (few + many == 0)).all()) and torch.equal(few + many, one.segments.offsets().diff())
