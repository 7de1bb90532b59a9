"""Vectors one after another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.payloads.base import Payload


@dataclass(frozen=True, slots=True, eq=False)
class Concat:
    """The concatenation of ``parts``, at least one.

    Example:
        >>> from thinwire.payloads import Dense
        >>> Concat((Dense(torch.tensor([1.0])), Dense(torch.tensor([2.0, 3.0])))).to_dense().tolist()
        [1.0, 2.0, 3.0]
    """

    parts: tuple[Payload, ...]

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return sum(part.numel for part in self.parts)

    def to_dense(self) -> Tensor:
        """The parts, one after another."""
        return torch.cat([part.to_dense() for part in self.parts])

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, part by part."""
        begin = 0
        for part in self.parts:
            part.add_to(out[begin : begin + part.numel], scale)
            begin += part.numel
