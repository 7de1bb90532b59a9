"""Triton's kernels between many tensors and one vector, in its interpreter, against the CPU's loops and the twins."""

import math
from collections.abc import Sequence

import pytest
import torch
from bits import LONG, on_device, same_bits
from torch import Tensor

from thinwire.kernels.flat import flatten, flatten_triton, unflatten, unflatten_triton

kernels = on_device(flatten_triton, unflatten_triton)

LONG_SHAPES: list[list[tuple[int, ...]]] = [[(65,), (length,), (7,)] for length in LONG]
SHAPES: list[list[tuple[int, ...]]] = [
    [],
    [(0,)],
    [()],
    [(63,)],
    [(8, 8)],
    [(65,), (0, 3), ()],
    [(4097,)],
    [(1000,), (24,), (1024,), (3, 5), (1, 1, 1), (2000,)],
    [(3,)] * 500,
    *LONG_SHAPES,
]


def tensors_of(shapes: list[tuple[int, ...]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    for tensor in tensors:
        tensor.view(-1)[::7], tensor.view(-1)[1::7], tensor.view(-1)[2::11] = 0.0, -0.0, 1e-42
    return tensors


@pytest.mark.parametrize("subtracts", [False, True])
@pytest.mark.parametrize("bad", [None, math.nan, -math.inf])
@pytest.mark.parametrize("shapes", SHAPES, ids=lambda shapes: f"{len(shapes)}of{sum(map(math.prod, shapes))}")
def test_flattened(shapes: list[tuple[int, ...]], bad: float | None, subtracts: bool) -> None:
    tensors = tensors_of(shapes, 0)
    # Gaps in memory: a copy is made of those.
    tensors = [tensor.T.contiguous().T if tensor.dim() == 2 else tensor for tensor in tensors]
    numel = sum(tensor.numel() for tensor in tensors)
    places = [numel // 2, numel - 1] if bad is not None and numel else []
    worst = 0.0 if bad is None else bad
    for place in places:
        for tensor in tensors:
            if 0 <= place < tensor.numel():
                tensor[tuple(int(i) for i in torch.unravel_index(torch.tensor(place), tensor.shape))] = worst
            place -= tensor.numel()
    minuend = torch.randn(numel, generator=torch.Generator().manual_seed(5)) if subtracts else None
    outs = [torch.full((numel,), 3.0) for _ in range(3)]
    first = kernels.flatten_unread(tensors, outs[0], minuend)
    assert torch.equal(first, flatten.flatten_unread(tensors, outs[1], minuend))
    assert first.item() == min(places, default=numel)
    assert flatten.flatten_finite(tensors, outs[2], minuend) == (not places)
    assert same_bits(outs[0], outs[1])
    assert same_bits(outs[0], outs[2])


@pytest.mark.parametrize("shapes", SHAPES, ids=lambda shapes: f"{len(shapes)}of{sum(map(math.prod, shapes))}")
def test_back_onto_tensors(shapes: list[tuple[int, ...]]) -> None:
    numel = sum(map(math.prod, shapes))
    x = torch.cat([torch.zeros(0), *(tensor.view(-1) for tensor in tensors_of(shapes, 1))])
    results = [tensors_of(shapes, 2) for _ in range(3)]
    bodies = (kernels.unflatten, unflatten.unflatten, unflatten.unflatten_torch)
    for body, tensors in zip(bodies, results, strict=True):
        body(x, tensors)
    assert all(map(same_bits, results[0], results[1]))
    assert all(map(same_bits, results[0], results[2]))
    for count in {0, min(1, numel), numel // 3, numel}:
        indices = torch.randperm(numel, generator=torch.Generator().manual_seed(count))[:count].sort().values
        values = torch.randn(count, generator=torch.Generator().manual_seed(count))
        results = [tensors_of(shapes, 3) for _ in range(3)]
        puts = (
            kernels.unflatten_sparse,
            unflatten.unflatten_sparse,
            unflatten.unflatten_sparse_torch,
        )
        for put, tensors in zip(puts, results, strict=True):
            if tensors:
                put(indices, values, tensors)
        assert all(map(same_bits, results[0], results[1]))
        assert all(map(same_bits, results[0], results[2]))


def halves_of(kinds: Sequence[torch.dtype], numel: int) -> list[Tensor]:
    """Tensors of different formats in turn, whose 16 bits have every value; some with gaps, one of no entries."""
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    tensors = []
    for place, kind in enumerate(kinds):
        if kind == torch.float32:
            tensors.append(tensors_of([(numel,)], place)[0])
        else:
            tensors.append(bits.roll(7919 * place)[:numel].view(kind))
        tensors.append(torch.zeros((0, 3), dtype=kind))
    return [*tensors, tensors[0][::2], tensors[0].new_ones(6).view(2, 3).T]


KINDS = [
    [torch.bfloat16],
    [torch.float16],
    [torch.bfloat16, torch.float16],
    [torch.float32, torch.float16, torch.bfloat16, torch.float32],
]


# The interpreter calculates by numpy, which warns of NaN.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("subtracts", [False, True])
@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_of_16_bits(kinds: list[torch.dtype], subtracts: bool) -> None:
    tensors = halves_of(kinds, 2**16 if len(kinds) == 1 else 1500)
    numel = sum(tensor.numel() for tensor in tensors)
    minuend = torch.randn(numel, generator=torch.Generator().manual_seed(5)) if subtracts else None
    outs = [torch.full((numel,), 3.0) for _ in range(3)]
    first = kernels.flatten_unread(tensors, outs[0], minuend)
    assert torch.equal(first, flatten.flatten_unread(tensors, outs[1], minuend))
    flatten.flatten_finite(tensors, outs[2], minuend)
    assert same_bits(outs[0], outs[1])
    # NaN has the same bits as from the loops, too.
    assert subtracts or torch.equal(outs[0].view(torch.int32), outs[2].view(torch.int32))
    assert same_bits(outs[0], outs[2])


@pytest.mark.parametrize("kinds", [[torch.bfloat16], [torch.bfloat16, torch.float32, torch.bfloat16]], ids=str)
def test_back_onto_16_bits(kinds: list[torch.dtype]) -> None:
    """Ties, what rounds to infinity, denormals, and NaN whose bits would be lost."""
    bits = torch.randint(-(2**31), 2**31, (3 * 1500,), generator=torch.Generator().manual_seed(1)).to(torch.int32)
    bits[::5] = bits[::5] & -0x10000 | 0x8000
    bits[1::5] = bits[1::5] & 0x1FFFF
    bits[2::50], bits[3::50], bits[4::50] = 0x7F7FFFFF, 0x7F800001, -0x800000
    x = bits.view(torch.float32)[: 1500 * len(kinds)]
    results = [[torch.ones(1500, dtype=kind) for kind in kinds] for _ in range(3)]
    bodies = (kernels.unflatten, unflatten.unflatten, unflatten.unflatten_torch)
    for body, tensors in zip(bodies, results, strict=True):
        body(x, tensors)
    for one, loops, torchs in zip(*results, strict=True):
        whole = torch.int16 if one.dtype == torch.bfloat16 else torch.int32
        assert torch.equal(one.view(whole), loops.view(whole))
        assert same_bits(one.float(), torchs.float())


@pytest.mark.parametrize("wrong", [[1, 1], [5, 4], [-1, 2], [3, 9]])
def test_what_is_out_of_order_writes_nothing(wrong: list[int]) -> None:
    tensors = [torch.ones(4), torch.ones(1, 5)]
    kernels.unflatten_sparse(torch.tensor(wrong), torch.zeros(2), tensors)
    assert all(bool((tensor == 1).all()) for tensor in tensors)
