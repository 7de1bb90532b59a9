"""Every operation that has a Triton kernel, called so that each kernel is launched in each of its forms."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

Operation = Callable[[], object]

CUTS = ([0, 512, 1024, 1536], [0, 1 << 21], [0, 3000, 3001, 5000])
"""Buckets of one size, one long segment, and uneven ones."""


def operations() -> list[Operation]:
    """In the order of the kernels' rooms."""
    return [*_flat(), *_reduce(), *_select(), *_quantize(), *_sparse(), *_transform()]


def _flat() -> Iterator[Operation]:
    from thinwire.kernels.flat import finite_triton, flatten_triton, unflatten_triton

    tensors, x = [torch.empty(2000), torch.empty(3000)], torch.empty(5000)
    yield partial(finite_triton.first_nonfinite, x)
    short = [tensor.bfloat16() for tensor in tensors]
    for each in (tensors, short, [tensors[0], short[1]]):
        yield partial(flatten_triton.flatten_unread, each, x)
        yield partial(flatten_triton.flatten_unread, each, x, x)
        yield partial(unflatten_triton.unflatten, x, each)
    yield partial(flatten_triton.flatten_unread, [tensor.half() for tensor in tensors], x)
    yield partial(unflatten_triton.unflatten_sparse, torch.arange(100), torch.empty(100), tensors)


def _cut(ends: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    return torch.tensor(ends), torch.empty(ends[-1]), torch.zeros(len(ends) - 1)


def _reduce() -> Iterator[Operation]:
    from thinwire.kernels.reduce import extents_triton, moments_triton, segment_sums_triton, truncated_sums_triton

    for ends in CUTS:
        offsets, x, centres = _cut(ends)
        yield partial(segment_sums_triton.segment_sums, x, offsets, 1)
        yield partial(segment_sums_triton.segment_sums, x, offsets, 2)
        yield partial(segment_sums_triton.segment_max, x, offsets)
        yield partial(extents_triton.segment_extents, x, offsets)
        yield partial(extents_triton.segment_sides, x, offsets)
        yield partial(moments_triton.segment_moments, x, offsets)
        for what in ("powers", "weights", "entries"):
            yield partial(truncated_sums_triton.tail_sums, x, offsets, centres, centres, what)


def _select() -> Iterator[Operation]:
    from thinwire.kernels.random import philox_triton
    from thinwire.kernels.sample import subset_triton
    from thinwire.kernels.select import accumulate_triton, top_k_triton

    for ends, counts in (([0, 256, 500], [5, 7]), ([0, 1000, 5000], [5, 7]), ([0, 1 << 20], [1000])):
        offsets, x, _ = _cut(ends)
        wanted = torch.tensor(counts)
        yield partial(top_k_triton.top_k, x, offsets, wanted)
        yield partial(accumulate_triton.accumulate_top_k, x, x, 0.5, x, offsets, wanted)
        yield partial(subset_triton.segment_subsets, 7, offsets, wanted, "cpu")
    yield partial(subset_triton.segment_subsets, 7, torch.tensor([0, 256, 500]), torch.tensor([200, 7]), "cpu")
    x = torch.empty(5000)
    yield partial(accumulate_triton.accumulate_take, x, x, 0.5, x, torch.arange(10))
    yield partial(philox_triton.random_words, 7, 0, 5000, "cpu")
    yield partial(philox_triton.uniform, 7, 0, 5000, "cpu")


def _quantize() -> Iterator[Operation]:
    from thinwire.kernels.bitpack import bits_triton
    from thinwire.kernels.quantize import (
        bf16_triton,
        bins_triton,
        dither_triton,
        levels_add_triton,
        signs_add_triton,
        signs_triton,
    )

    for ends in CUTS:
        offsets, x, scales = _cut(ends)
        bits = torch.empty((ends[-1] + 7) // 8, dtype=torch.uint8)
        yield partial(signs_triton.mean_signs, x, offsets)
        yield partial(signs_triton.accumulate_signs, x, x, 0.5, x, offsets)
        yield partial(signs_add_triton.add_signs, bits, scales, offsets, x, 0.5)
        yield partial(signs_add_triton.write_signs, bits, scales, offsets, x)
        for levels, width in ((1, 2), (7, 4), (127, 8)):
            codes = torch.empty(width * ends[-1] // 8 + 1, dtype=torch.uint8)
            for norm in ("max", "l2"):
                yield partial(dither_triton.quantize, x, offsets, levels, norm, 7, None)
                yield partial(dither_triton.accumulate_quantize, x, x, 0.5, x, offsets, levels, norm, 7, None)
            yield partial(levels_add_triton.add_levels, codes, width, levels, scales, offsets, x, 0.5)
            yield partial(levels_add_triton.write_levels, codes, width, levels, scales, offsets, x)
    x, codes = torch.empty(5000), torch.empty(5000, dtype=torch.int32)
    yield partial(signs_triton.sign_bits, x)
    yield partial(bf16_triton.round_to_bf16, x, 7, torch.empty(5000, dtype=torch.bfloat16))
    for width in (1, 4, 5, 8, 13):
        yield partial(bits_triton.pack, codes, width)
        yield partial(bits_triton.unpack, torch.empty(10_000, dtype=torch.uint8), 5000, width)
    for width in (2, 3, 8):
        yield partial(bins_triton.fill_bins, x, 0.1, 0.3, width)


def _sparse() -> Iterator[Operation]:
    from thinwire.kernels.sparse import scatter_signs_triton, scatter_triton

    x, indices, values = torch.empty(5000), torch.arange(100), torch.empty(100)
    bits = torch.empty(13, dtype=torch.uint8)
    yield partial(scatter_triton.scatter_add, indices, values, x, 0.5)
    yield partial(scatter_triton.scatter_write, indices, values, x)
    for ends in ([0, 100], [0, 3, 50, 100]):
        offsets, _, scales = _cut(ends)
        yield partial(scatter_signs_triton.scatter_add_signs, indices, bits, scales, offsets, x, 0.5)


def _transform() -> Iterator[Operation]:
    from thinwire.kernels.transform import hadamard_triton

    x = torch.empty(2**21 + 4096)
    for inverse in (False, True):
        yield partial(hadamard_triton.hadamard_rotate, x, 7, inverse=inverse)
        yield partial(hadamard_triton.hadamard_rotate, x, 7, inverse=inverse, block=4096)
