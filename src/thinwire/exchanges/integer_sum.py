"""Integers that all workers add up as they are."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from thinwire.arrays import over, to_device
from thinwire.compressors import Identity
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.unfit import tell_unfit
from thinwire.kernels.flat.finite import is_finite
from thinwire.kernels.quantize.grid import round_to_levels
from thinwire.kernels.reduce.segment_sums import segment_sums
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.payloads import Dense, Levels
from thinwire.payloads.base import per_entry
from thinwire.steps import Steps, all_reduce

_DTYPES = {"int8": torch.int8, "int16": torch.int16, "int32": torch.int32}
_MOST = 32767
_LEAST_UNIT = 1e-8


@register
@dataclass(frozen=True, slots=True)
class IntegerSum:
    """Entries over a common unit are rounded at random to integers, which are all-reduced as such (IntSGD).

    The unit of a segment of d entries is ``sqrt(2 P r + 1e-16) / sqrt(d)``, where r is a running mean of the squared
    norms of its means so far, which all workers know: ``r = beta r + (1 - beta) ||mean||^2``, at first ``||mean||^2``
    (Mishchenko et al. 2021; their r is of steps over learning rates, which under plain SGD are these means, as in their
    code). So rounding is unbiased and as fine as steps are short, and no scale is sent. A worker's integers are clipped
    to ``floor(largest / P)``, so that the sum of P of them never overflows the format. The first exchange, when nothing
    is known, is of f32. ``message_bytes`` are the ``d + 1`` integers handed over; the last one says whether all is
    finite.

    Args:
        format: of the integers on the wire, also of their sums.
        beta: of the running mean.

    Raises:
        ConfigError: beta out of range.
    """

    format: Literal["int8", "int16", "int32"] = "int8"
    beta: float = 0.9

    needs_linear: ClassVar[bool] = True
    """Integers are added as they are."""

    workers_agree: ClassVar[bool] = True
    """All add up the same integers."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.beta < 1.0:
            raise ConfigError(f"beta = {self.beta} was given; a running mean takes a factor from 0 to below 1")

    def largest(self, size: int) -> int:
        """The largest integer that a worker of ``size`` sends: as many of them do not overflow.

        Example:
            >>> IntegerSum().largest(4), IntegerSum("int32").largest(4)
            (31, 32767)
        """
        return min(int(torch.iinfo(_DTYPES[self.format]).max) // size, _MOST)

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """No movement yet.

        Raises:
            ConfigError: a compressor, which would have no effect, or more workers than the format has room for.
        """
        if not isinstance(compressor, Identity):
            raise ConfigError(f"{compressor} has no effect with IntegerSum, which rounds by itself; leave it out")
        if not self.largest(ctx.size):
            raise ConfigError(
                f"sums over {ctx.size} workers do not fit into {self.format} even if each sends -1, 0 or 1; take "
                "format=int16 or format=int32"
            )
        return {"movement": torch.zeros(ctx.segments.count, dtype=torch.float32, device=ctx.device)}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """One all-reduce of integers; another round if something is not finite."""
        intended = sender.add_residual(x)
        if not bool(state["movement"].any()):
            mean = yield from all_reduce(intended, divisor=ctx.size)
            sent: Dense | Levels = Dense(intended)
            num_bytes = intended.nbytes
        else:
            is_fit = is_finite(intended)
            levels = self._rounded(intended if is_fit else torch.zeros_like(intended), ctx, state)
            handed_over = torch.zeros(intended.numel() + 1, dtype=_DTYPES[self.format], device=intended.device)
            handed_over[:-1] = levels.levels()
            handed_over[-1] = 0 if is_fit else 1
            num_bytes = handed_over.nbytes
            total = yield from all_reduce(handed_over, in_place=True)
            if int(total[-1]):
                return (yield from tell_unfit(intended, num_bytes, ctx))
            mean = total[:-1].to(torch.float32)
            mean *= per_entry(over(levels.units(), ctx.size), ctx.segments)
            sent = levels
        finite = is_finite(mean)
        if finite:
            sender.commit(sent)
        return Aggregate(mean, finite, num_bytes, sent, ctx.size, self._following(mean, ctx, state))

    def _rounded(self, x: Tensor, ctx: Context, state: State) -> Levels:
        most = self.largest(ctx.size)
        sizes = to_device(ctx.segments.offsets().diff().clamp(min=1), x.device)
        units = ((state["movement"] * (2.0 * ctx.size) + _LEAST_UNIT**2) / sizes).sqrt()
        scales = (units * most).clamp(max=torch.finfo(torch.float32).max)
        units = over(scales, most)
        return Levels(
            round_to_levels(x, ctx.segments.offsets(), units, most, ctx.key.bits64()), scales, most, ctx.segments
        )

    def _following(self, mean: Tensor, ctx: Context, state: State) -> State:
        squares = segment_sums(mean, ctx.segments.offsets(), 2).to(torch.float32)
        before = state["movement"]
        return {"movement": torch.where(before > 0, before * self.beta + squares * (1.0 - self.beta), squares)}


def integer_unit(movement: float, size: int, numel: int) -> float:
    """The unit of a segment of ``numel`` entries: the inverse of IntSGD's alpha, in gradients.

    Example:
        >>> integer_unit(2.0, 4, 16)
        1.0
    """
    return math.sqrt((2.0 * size * movement + _LEAST_UNIT**2) / numel)
