"""What exchanges share that compress by themselves: the memory in two steps, and vectors that are not compressed."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from thinwire.compressors.base import Compressor
from thinwire.payloads import Dense, Payload, Sparse


@runtime_checkable
class Remembered(Compressor, Protocol):
    """A compressor with a memory, which says first what is to be sent and is told afterwards what was."""

    compressor: Compressor
    """The one without the memory."""

    def add_residual(self, x: Tensor) -> Tensor:
        """What is to be sent of ``x``, which is handed over; read it until :meth:`settle`, do not write to it."""
        ...

    def commit(self, sent: Payload) -> None:
        """Say what was sent of what :meth:`recall` returned."""
        ...


def add_residual(x: Tensor, compressor: Compressor) -> tuple[Tensor, Compressor]:
    """What is to be sent of ``x``, and the compressor without its memory.

    Example:
        >>> from thinwire.compressors import Identity
        >>> recall(torch.ones(1), Identity())
        (tensor([1.]), Identity())
    """
    return (
        (compressor.add_residual(x), compressor.compressor) if isinstance(compressor, Remembered) else (x, compressor)
    )


def commit(compressor: Compressor, sent: Payload) -> None:
    """Tell the memory, if there is one, what was sent."""
    if isinstance(compressor, Remembered):
        compressor.commit(sent)


def first_nonfinite(x: Tensor) -> Sparse:
    """The first entry of ``x`` that is NaN or inf; no entry if all are finite.

    It is sent in place of a vector that must not be compressed, so that all learn of it.

    Example:
        >>> first_nonfinite(torch.tensor([1.0, torch.inf])).to_dense().tolist()
        [0.0, inf]
    """
    first = torch.isfinite(x).logical_not().nonzero().view(-1)[:1]
    return Sparse(x.numel(), first, Dense(x[first]))
