"""Add to the next message what this one left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.compressors.base import (
    Compressor,
    DifferenceCompressor,
    can_compress_difference,
    compress_residual,
)
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.select.difference import add_difference
from thinwire.layout import Segments, State, views_like
from thinwire.memory.base import compress_in_steps
from thinwire.memory.handed import Difference
from thinwire.memory.residual import ResidualDtype, add_kept, keep_residual, residual_zeros
from thinwire.payloads import Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class ErrorFeedback:
    """``u = decay * m + x``, send ``q = C(u)``, keep ``m = u - q`` (Seide 2014; Stich et al. 2018, Alg. 1).

    The new residual is written over ``x``, from the decoded message; the old one is kept until the message is
    delivered. For the theory to hold ``x`` is in units of the parameters (learning rate times gradient), as it
    is under model averaging.

    Args:
        decay: factor on the old residual, in (0, 1]; 1 in the papers above, 0.95 in SparseLoCo.
        residual_dtype: what the residual is kept in between exchanges: ``f32``, or ``bf16``, half as much memory, to
            which it is rounded at random such that nothing that is owed is lost on average. Messages are made from
            sums in f32.

    Raises:
        ConfigError: ``decay`` out of range.

    Example:
        >>> import torch
        >>> from thinwire.compressors import TopK
        >>> memory = ErrorFeedback()
        >>> state = memory.init(torch.zeros(2))
        >>> x = torch.tensor([1.0, 2.0])
        >>> payload, state = memory.compress(x, TopK(k=1), Key(0), Segments.whole(2), state)
        >>> payload.to_dense().tolist(), state["residual"].tolist()
        ([0.0, 2.0], [1.0, 0.0])
    """

    decay: float = 1.0
    residual_dtype: ResidualDtype = "f32"

    needs_contraction: ClassVar[bool] = True
    """With an error of 1 or more the residual may grow without bound."""

    keeps_only_losses: ClassVar[bool] = True
    """The residual of exact messages is 0."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 < self.decay <= 1.0:
            raise ConfigError(f"decay {self.decay} was given; error feedback takes a factor above 0, at most 1")

    def init(self, like: Tensor) -> State:
        """A residual of zeros."""
        return {"residual": residual_zeros(like, self.residual_dtype)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``decay * residual + x``, written over ``x``: the residual if nothing is sent."""
        return add_kept(x, state["residual"], self.decay, x), {"residual": x}

    def commit(self, sent: Payload, state: State) -> State:
        """The decoded message is subtracted."""
        sent.add_to(state["residual"], -1.0)
        return state

    def take_in(self, parts: Sequence[Tensor], sent: Payload, state: State) -> State:
        """The parts are added to the residual as it lies, and the decoded message is subtracted."""
        residual = state["residual"].float()  # itself, if it is kept in f32
        if self.decay != 1.0:
            residual.mul_(self.decay)
        torch._foreach_add_(views_like(residual, parts), list(parts))
        return self.commit(sent, {"residual": residual})

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for ``decay * residual + x``; the next residual has the memory of ``x``."""
        residual = state["residual"]
        if residual.dtype != torch.float32:
            return compress_in_steps(self, x, compressor, key, segments, state)
        payload = compress_residual(compressor, x, residual, self.decay, x, key, segments)
        return payload, {"residual": x}

    def can_stream(self, compressor: Compressor, segments: Segments) -> bool:
        """With a residual in f32, if the compressor can."""
        return self.residual_dtype == "f32" and can_compress_difference(compressor, segments)

    def compress_difference(
        self, x: Difference, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> Payload:
        """The message for ``decay * residual + x``, of which no vector is made."""
        assert isinstance(compressor, DifferenceCompressor)
        return compressor.compress_difference(x.reference, x.tensors, state["residual"], self.decay, key, segments)

    def take_in_difference(self, x: Difference, sent: Payload, state: State) -> State:
        """``x`` is added to the residual as it lies, and the decoded message is subtracted."""
        add_difference(x.reference, x.tensors, state["residual"], self.decay)
        return self.commit(sent, state)

    def keep(self, state: State, present: State, key: Key) -> State:
        """The residual, rounded at random where it is kept in fewer bits."""
        return keep_residual(state, present, key)
