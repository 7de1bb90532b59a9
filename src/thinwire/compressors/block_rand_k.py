"""Keep random blocks of consecutive entries."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thinwire.arrays import CPU, to_device
from thinwire.compressors.amount import check_share, kept_segments, sparse_outline
from thinwire.compressors.base import Compressor, Traits, check_vector, sparsified
from thinwire.compressors.bernoulli import sampled
from thinwire.compressors.gspar import segment_counts
from thinwire.compressors.identity import Identity
from thinwire.compressors.seeded_rand_k import common_key
from thinwire.compressors.shortening import magnified
from thinwire.config import Share, check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import segment_of_each
from thinwire.kernels.sample.subset import segment_subsets
from thinwire.layout import Segments
from thinwire.payloads import Sparse
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRandK:
    """``C(x) = V(x_S)`` with S the entries of uniformly random blocks of ``block`` consecutive entries.

    Each segment is split into blocks, the last one may be shorter; ``density`` of them are kept, at least one. The kept
    entries lie side by side in memory, and so their indices cost next to nothing. ``shared=True`` draws the same
    blocks on all workers: sums stay as sparse as one message.

    Constant: with m of n blocks kept ``E||C(x) - x||^2 = (1 - m/n) ||x||^2``, an equality, as is ``omega = n/m - 1``
        with ``unbiased=True``.
    Bits: for each kept entry 32 (or ``values``) and, with gaps in exp-Golomb code, about 1 for its index.
    Paper: the block-wise rand-k of Konecny et al. 2016 and of random block coordinate descent; no constant is claimed
        there.
    Use it when: gathering single entries would be slow, or supports are to be shared.

    Args:
        density: kept share of the blocks of each segment, in (0, 1].
        block: entries of a block.
        values: what becomes of the kept values, segment by segment.
        unbiased: scale the kept values by n/m.
        shared: the same blocks on all workers, see :func:`thinwire.compressors.seeded_rand_k.common_key`.

    Raises:
        ConfigError: a number out of its range.

    Example:
        >>> payload = BlockRandK(density=0.5, block=2).compress(torch.ones(4), Key(0), Segments.whole(4))
        >>> payload.to_dense().tolist() in ([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0])
        True
    """

    density: Share
    block: int = 256
    values: Compressor = Identity()
    unbiased: bool = False
    shared: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_share("density", self.density)
        if self.block < 1:
            raise ConfigError(f"blocks of {self.block} entries were asked for; at least 1 is needed")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sparse:
        """The entries of the drawn blocks, in order."""
        check_vector(x, segments)
        offsets = segments.offsets()
        num_blocks = (offsets.diff() + (self.block - 1)) // self.block
        counts = self._count(num_blocks)
        cut = torch.cat([num_blocks.new_zeros(1), num_blocks.cumsum(0)])
        support = common_key(key) if self.shared else key
        blocks = segment_subsets(support.fold("indices").bits64(), cut, counts)
        owner = segment_of_each(counts)
        starts = offsets[owner] + (blocks - cut[owner]) * self.block
        sizes = torch.minimum(offsets[owner + 1] - starts, starts.new_tensor(self.block))
        indices = _runs(starts, sizes, self.block)
        kept = x.index_select(0, to_device(indices, x.device))
        kept_counts = segment_counts(indices, segments)
        if self.unbiased:
            scales = num_blocks.to(torch.float32) / counts.clamp(min=1).to(torch.float32)
            kept = magnified(kept, to_device(scales.repeat_interleave(kept_counts), x.device))
        values = self.values.compress(kept, key.fold("values"), kept_segments(segments, kept_counts))
        return Sparse(x.numel(), to_device(indices, x.device), values)

    def _count(self, num_blocks: Tensor) -> Tensor:
        wanted = (self.density * num_blocks.to(torch.float32) + 0.5).floor().to(torch.int64).clamp(min=1)
        return torch.minimum(wanted, num_blocks)

    def outline(self, segments: Segments) -> Sparse:
        """As many whole blocks as are kept."""
        sizes = segments.offsets().diff()
        counts = torch.minimum(self._count((sizes + (self.block - 1)) // self.block) * self.block, sizes)
        return sparse_outline(counts, self.values, segments)

    def traits(self, numel: int) -> Traits:
        """A contraction in expectation, or unbiased; linear if shared."""
        num_blocks = torch.tensor([-(-numel // self.block)], dtype=torch.int64, device=CPU)
        share = int(self._count(num_blocks)) / max(int(num_blocks), 1) if numel else 1.0
        # The number of kept entries varies with the last block.
        values = self.values.traits(max(1, min(numel, int(self._count(num_blocks)) * self.block)))
        traits = sampled(share, values) if self.unbiased else sparsified(share, values)
        return replace(traits, linear=self.shared and values.linear)


def _runs(starts: Tensor, sizes: Tensor, longest: int) -> Tensor:
    """``starts[j], starts[j] + 1, ...``, ``sizes[j]`` of them (at most ``longest``), for each j."""
    steps = torch.arange(longest, dtype=torch.int64, device=CPU)
    return (starts[:, None] + steps)[steps < sizes[:, None]]
