"""What a message means: the interface that every payload satisfies."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from thinwire.arrays import to_device
from thinwire.layout import Segments


@runtime_checkable
class Payload(Protocol):
    """A compressed vector that knows which vector it stands for.

    A payload is a value: its tensors are never written to after it is made. Two payloads that stand for the
    same vector are decoded to the same bits on every worker.
    """

    @property
    def numel(self) -> int:
        """Length ``d`` of the vector that the payload stands for."""
        ...

    def to_dense(self) -> Tensor:
        """The vector itself: f32 of shape ``[d]``, freshly allocated."""
        ...

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector`` in place, in O(entries sent), not O(d), for sparse payloads.

        ``out`` is contiguous f32 of shape ``[d]``. Each entry is computed as ``out + (scale * value)`` with
        both roundings in f32, so ``zeros.add_to(1.0)`` equals :meth:`to_dense` bit for bit, -0.0 as 0.0.
        """
        ...


def per_entry(values: Tensor, segments: Segments) -> Tensor:
    """For every entry the value of its segment: ``[segments.numel]``, freshly allocated.

    Example:
        >>> import torch
        >>> per_entry(torch.tensor([1.0, 2.0]), Segments.of_sizes([2, 1])).tolist()
        [1.0, 1.0, 2.0]
    """
    if segments.count == 1:
        return values.repeat(segments.numel)
    return values.repeat_interleave(to_device(segments.offsets(), values.device).diff(), output_size=segments.numel)


def add_dense(values: Tensor, out: Tensor, scale: float) -> None:
    """``out += scale * values``, both roundings in f32; ``values`` is used up.

    Example:
        >>> import torch
        >>> out = torch.ones(2)
        >>> add_dense(torch.tensor([1.0, 2.0]), out, 0.5)
        >>> out.tolist()
        [1.5, 2.0]
    """
    out.add_(values if scale == 1.0 else values.mul_(scale))
