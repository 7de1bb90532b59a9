"""Tensors of 16 bits go to a vector and back as torch converts them, number by number."""

import math

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.flat.flatten import flatten_finite, flatten_unread
from thinwire.kernels.flat.unflatten import unflatten, unflatten_torch
from thinwire.worker.parameters import unflatten_any

HALVES = (torch.bfloat16, torch.float16)

pytestmark = pytest.mark.usefixtures("short_is_shared")


@pytest.fixture(params=[1, 2], autouse=True)
def threads(request: pytest.FixtureRequest) -> None:
    torch.set_num_threads(request.param)


def all_halves(dtype: torch.dtype) -> Tensor:
    """Every number of the format."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Equal bits, but of NaN, which may have any."""
    bits = torch.int16 if one.element_size() == 2 else torch.int32
    return bool(((one.view(bits) == other.view(bits)) | (one.isnan() & other.isnan())).all())


@pytest.mark.parametrize("dtype", HALVES)
def test_every_number_is_widened_exactly(dtype: torch.dtype) -> None:
    halves = all_halves(dtype)
    out = torch.empty(2**16)
    assert not flatten_finite([halves], out)
    assert same_numbers(out, halves.to(torch.float32))
    finite = halves[halves.isfinite()]
    out = torch.empty(finite.numel())
    assert flatten_finite([finite], out)
    minuend = torch.linspace(-3, 3, finite.numel())
    assert flatten_finite([finite], out, minuend)
    assert torch.equal(out, minuend - finite.to(torch.float32))


def test_numbers_are_rounded_to_nearest() -> None:
    """Every number of the format, what lies between two, a bit beside that, and any bits at all."""
    dtype = torch.bfloat16
    halves = all_halves(dtype).to(torch.float32)
    neighbours = all_halves(dtype).roll(-1).to(torch.float32)
    between = ((halves.double() + neighbours.double()) / 2).to(torch.float32)
    beside = [torch.nextafter(between, torch.full_like(between, towards)) for towards in (-math.inf, math.inf)]
    anything = torch.randint(-(2**31), 2**31, (200_000,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    for x in (halves, between, *beside, anything.view(torch.float32)):
        targets = [torch.zeros(7, dtype=dtype), torch.zeros((), dtype=dtype), torch.zeros(x.numel() - 8, dtype=dtype)]
        unflatten(x, targets)
        found = torch.cat([target.view(-1) for target in targets])
        assert same_numbers(found, x.to(dtype))
        unflatten_torch(x, targets)
        assert same_numbers(found, torch.cat([target.view(-1) for target in targets]))


def test_formats_may_differ() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = [(3, 5), (), (0,), (4097,), (64,)]
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.float16, torch.bfloat16]
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    expected = torch.cat([tensor.reshape(-1).to(torch.float32) for tensor in tensors])
    out = torch.empty_like(expected)
    assert flatten_finite(tensors, out)
    assert torch.equal(out, expected)
    assert int(flatten_unread(tensors, out)) == out.numel()
    assert torch.equal(out, expected)
    copies = [torch.zeros_like(tensor) for tensor in tensors]
    with pytest.raises(ConfigError, match="float32 or bfloat16"):
        unflatten(expected, copies)
    unflatten_any(expected, copies)
    assert all(map(torch.equal, copies, tensors))
    for place, bad in ((2, math.nan), (4, math.inf), (-1, -math.inf)):
        spoilt = [tensor.clone() for tensor in tensors]
        spoilt[place].view(-1)[-1:] = bad
        assert flatten_finite(spoilt, out) == (spoilt[place].numel() == 0)
