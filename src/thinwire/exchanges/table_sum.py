"""Codes of a table, whose integers a server adds up without decoding them."""

import functools
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import CPU, to_device
from thinwire.compressors import Identity
from thinwire.compressors.base import Compressor
from thinwire.compressors.seeded_rand_k import common_key
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.shared_scale import largest_scales
from thinwire.exchanges.star import collect, spread
from thinwire.kernels.bitpack.bits import pack, unpack
from thinwire.kernels.flat.finite import is_finite
from thinwire.kernels.quantize.stochastic_table import largest_bits, quantile, rounding_table
from thinwire.kernels.random.philox import uniform
from thinwire.kernels.reduce.segment_sums import segment_sums
from thinwire.kernels.transform.hadamard import hadamard_blocks, hadamard_rotate
from thinwire.layout import Segments, State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender, first_nonfinite
from thinwire.payloads import Codebook, Dense, Grid, Payload, Rotated, Sparse
from thinwire.payloads.base import per_entry
from thinwire.steps import Steps, all_gather, receive, send
from thinwire.wire import encode, kinds_in, max_num_bytes

_MOST_POINTS = 65536


@register
@dataclass(frozen=True, slots=True)
class TableSum:
    """Workers rotate alike, agree on a range, and send codes whose sum is decoded once (THC, Li et al. 2024).

    ``R x`` is rounded at random to points of a table: ``2^bits`` of the integers 0 to ``granularity``, spread evenly
    over ``-M`` to M. ``M = t ||x|| / sqrt(n)`` for each block of n entries, with the largest norm of all workers and t
    the quantile that a share ``tail`` of Gaussian numbers passes; what passes is clipped, which is biased, so give it
    a memory. The table is the one of least variance for such numbers. All messages then say integers of one unit: the
    server looks them up, adds them, and sends the sums, in ``ceil(log2(granularity P + 1))`` bits an entry; nobody but
    the receiver decodes, once, and rotates back.

    Up: ``bits`` an entry, beside a gather of one f32 a block. Segments are not looked at: blocks are the largest
    powers of two that fit, or ``block``.

    Args:
        bits: of a code.
        granularity: of the grid, 30 in the authors' prototype.
        tail: the share of Gaussian numbers that is clipped.
        server: the worker that adds.
        block: the largest block, a power of two; None for the largest possible.

    Raises:
        ConfigError: bits that are none or more than the grid has points for, a tail or a block out of range.
    """

    bits: int = 4
    granularity: int = 30
    tail: float = 1.0 / 32.0
    server: int = 0
    block: int | None = None

    needs_linear: ClassVar[bool] = True
    """The integers of codes are added as they are."""

    workers_agree: ClassVar[bool] = True
    """All get the server's message."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 1 <= self.granularity <= 1024 or not 1 <= self.bits <= min(8, largest_bits(self.granularity)):
            raise ConfigError(
                f"bits = {self.bits} and granularity = {self.granularity} were given; a code has 1 to 8 bits, and the "
                "grid at least 2^bits points, of 1 to 1024 steps"
            )
        if not 0.0 < self.tail < 1.0:
            raise ConfigError(f"tail = {self.tail} was given; a share is above 0 and below 1")
        hadamard_blocks(0, self.block)

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered.

        Raises:
            ConfigError: a compressor, which would have no effect; a server that is none of the workers; or too many.
        """
        if not isinstance(compressor, Identity):
            raise ConfigError(f"{compressor} has no effect with TableSum, which rounds by itself; leave it out")
        if not 0 <= self.server < ctx.size:
            raise ConfigError(f"worker {self.server} is to be the server, but there are workers 0 to {ctx.size - 1}")
        if self.granularity * ctx.size >= _MOST_POINTS:
            raise ConfigError(f"a sum over {ctx.size} workers has more than {_MOST_POINTS} values; lower granularity")
        return {}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """A gather of norms, codes up, sums down."""
        intended, segments = sender.add_residual(x), self._segments(ctx)
        is_fit = is_finite(intended)
        norms = segment_sums(intended, segments.offsets(), 2).sqrt().to(torch.float32) if is_fit else None
        message = encode(Dense(norms) if norms is not None else first_nonfinite(intended))
        combine = functools.partial(largest_scales, reader=ctx.reader, num_scales=segments.count)
        longest = max_num_bytes(Dense(torch.empty(segments.count, dtype=torch.float32, device="meta")))
        found = yield from all_gather(message, combine, max(longest, ctx.max_num_bytes))
        if isinstance(found, Sparse):
            return Aggregate(found.to_dense(), False, message.numel(), found, ctx.size)
        sizes = to_device(segments.offsets().diff().clamp(min=1), found.device)
        scales = found * quantile(self.tail) / sizes.to(torch.float32).sqrt()
        if not is_finite(scales):
            return Aggregate(intended * torch.inf, False, message.numel(), Dense(scales), ctx.size)
        rotation = common_key(ctx.key).fold("rotation").bits64()
        codes = self.codes(hadamard_rotate(intended, rotation, block=self.block), scales, segments, ctx)
        up = encode(codes)
        total = yield from self._added(up, codes, ctx)
        mean = hadamard_rotate(total.to_dense(), rotation, inverse=True, block=self.block)
        sent = Rotated(codes, rotation, 1, self.block)
        finite = is_finite(mean)
        if finite:
            sender.commit(sent)
        return Aggregate(mean, finite, message.numel() + up.numel(), sent, ctx.size)

    def codes(self, rotated: Tensor, scales: Tensor, segments: Segments, ctx: Context) -> Codebook:
        """Rotated entries, clipped and rounded at random to the table."""
        steps = to_device(torch.tensor(self.table(), dtype=torch.float32, device=CPU), rotated.device)
        ranges = per_entry(scales, segments)
        place = (rotated / torch.where(ranges > 0, ranges, 1.0)).clamp_(-1.0, 1.0).add_(1.0)
        place.mul_(self.granularity / 2.0)
        low = torch.searchsorted(steps, place, right=True).sub_(1).clamp_(0, steps.numel() - 2)
        share = (place - steps[low]) / (steps[low + 1] - steps[low])
        up = uniform(ctx.key.bits64(), 0, rotated.numel(), rotated.device) < share
        codes = low + up
        return Codebook(pack(codes, self.bits), steps * (2.0 / self.granularity) - 1.0, scales, segments)

    def table(self) -> tuple[int, ...]:
        """The integers that codes stand for."""
        return rounding_table(self.bits, self.granularity, self.tail)

    def added(self, parts: list[Codebook]) -> Grid:
        """The mean of what codes stand for, as their integers' sum: nothing is decoded.

        Example:
            >>> whole, table = Segments.whole(2), torch.tensor([-1.0, 1.0])
            >>> part = Codebook(pack(torch.tensor([0, 1]), 1), table, torch.tensor([3.0]), whole)
            >>> TableSum(bits=1, granularity=1).added([part, part]).to_dense().tolist()
            [-3.0, 3.0]
        """
        first, most = parts[0], self.granularity * len(parts)
        integers = to_device(torch.tensor(self.table(), dtype=torch.int32, device=CPU), first.codes.device)
        total = sum((integers[unpack(part.codes, part.numel, part.width)] for part in parts[1:]),
                    integers[unpack(first.codes, first.numel, first.width)])  # fmt: skip
        packed = pack(total, max(1, most.bit_length()))
        return Grid(packed, most + 1, -first.scales, first.scales * (2.0 / most), first.segments)

    def _added(self, up: Tensor, own: Codebook, ctx: Context) -> Steps[Payload]:
        """The sum of all workers' codes, which the server sends to all."""
        at_most = replace(ctx, max_num_bytes=max_num_bytes(own))
        if ctx.rank != self.server:
            yield from send(self.server, up)
            outline = self.added([own] * ctx.size)
            reader = ctx.reader.with_kinds(kinds_in(outline))
            return (yield from receive(self.server, lambda come: reader.part(come, "the sum"), max_num_bytes(outline)))
        reader = ctx.reader.with_kinds(kinds_in(own))
        parts = [part for part in reader.parts((yield from collect(up, at_most))) if isinstance(part, Codebook)]
        down = encode(self.added(parts))
        yield from spread(down, ctx)
        return ctx.reader.with_kinds(None).part(down, "the sum")

    def _segments(self, ctx: Context) -> Segments:
        return Segments.of_sizes(hadamard_blocks(ctx.segments.numel, self.block).diff().tolist())
