"""Vectors of more than 2**31 entries, whose places have no room in 32 bits; a short one where the device pretends."""

import functools
import os

import pytest
import torch
from payload_tensors import tensors_in
from place import DEVICE, IS_CUDA, host, working

from thinwire.compressors import QSGD, Compressor, Sign, TopK
from thinwire.kernels.flat import flatten
from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback
from thinwire.random import Key

NUMEL = 2**31 + 5 if IS_CUDA else 4101
NEEDED = 6 * 4 * NUMEL
"""Bytes of the device's memory, and of the host's: vector, residual and sum, and what is made of them."""

COMPRESSORS = (TopK(density=0.001), TopK(density=0.001, values=Sign()), Sign(), QSGD(levels=7, norm="max"))


def free() -> int:
    """Bytes that may be taken, of the memory that has less of them."""
    host_free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(torch.cuda.mem_get_info()[0], host_free) if IS_CUDA else host_free


pytestmark = pytest.mark.skipif(free() < NEEDED, reason=f"less than {NEEDED / 1e9:.0f} GB of memory are free")


@functools.cache
def vector() -> torch.Tensor:
    """Small numbers, and the largest at either end."""
    x = torch.rand(NUMEL, generator=torch.Generator().manual_seed(1)).sub_(0.5)
    x[:3], x[-3:] = torch.tensor([2.0, -3.0, 4.0]), torch.tensor([-5.0, 6.0, -7.0])
    return x


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=str)
def test_compressed_as_on_the_cpu(compressor: Compressor) -> None:
    """With a residual, and decoded."""
    memory, whole = ErrorFeedback(), Segments.whole(NUMEL)
    x, state = vector(), memory.init(torch.empty(NUMEL))
    sent, state = memory.compress(x.clone(), compressor, Key(3), whole, state)
    with working():
        state_there = memory.init(torch.empty(NUMEL).to(DEVICE))
        there, state_there = memory.compress(x.to(DEVICE), compressor, Key(3), whole, state_there)
        pairs = list(zip(tensors_in(sent), tensors_in(there), strict=True))
        assert pairs
        assert all(torch.equal(one, host(other)) for one, other in pairs)
        assert torch.equal(state["residual"], host(state_there["residual"]))
        del state_there
        assert torch.equal(sent.to_dense(), host(there.to_dense()))


@pytest.mark.parametrize("bad", [None, NUMEL - 2])
def test_flattened_as_on_the_cpu(bad: int | None) -> None:
    x = vector().clone()
    if bad is not None:
        x[bad] = torch.nan
    with working():
        there = x.to(DEVICE)
        pieces = [there[:7], there[7 : NUMEL - 1], there[NUMEL - 1 :]]
        out = torch.empty_like(there)
        first = flatten.flatten_unread(pieces, out)
        assert int(first) == (NUMEL if bad is None else bad)
        assert torch.equal(host(out).view(torch.int32), x.view(torch.int32))
