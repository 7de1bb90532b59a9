"""Flattening is concatenation, and finds what is not finite in any tensor."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.flat.flatten import flatten_finite, flatten_unread
from thinwire.kernels.flat.unflatten import unflatten, unflatten_torch
from thinwire.worker.parameters import unflatten_any


def read_at_once(tensors: Sequence[Tensor], out: Tensor, minuend: Tensor | None = None) -> bool:
    """What :func:`flatten_unread` has found."""
    return int(flatten_unread(tensors, out, minuend)) == out.numel()


FLATTEN = (flatten_finite, read_at_once)

pytestmark = pytest.mark.usefixtures("short_is_shared")

SHAPES = [
    [],
    [()],
    [(0,), (3, 0)],
    [(1,)] * 64,
    [(63,), (0,), (64,), (65,)],
    [(4096,), (7, 9), ()],
    [(1000, 400), (3,)],
]


@pytest.fixture(params=[1, 2], autouse=True)
def threads(request: pytest.FixtureRequest) -> None:
    torch.set_num_threads(request.param)


@pytest.mark.parametrize("shapes", SHAPES, ids=lambda shapes: str(len(shapes)))
def test_the_vector_is_the_concatenation(shapes: list[tuple[int, ...]]) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    expected = [value for tensor in tensors for value in tensor.flatten().tolist()]
    for flatten in FLATTEN:
        out = torch.full((len(expected),), math.nan)
        assert flatten(tensors, out)
        assert out.tolist() == expected


@pytest.mark.parametrize("shapes", SHAPES, ids=lambda shapes: str(len(shapes)))
def test_with_a_minuend_the_vector_is_what_the_entries_are_short_of_it(shapes: list[tuple[int, ...]]) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    entries = torch.tensor([value for tensor in tensors for value in tensor.flatten().tolist()], dtype=torch.float32)
    minuend = torch.randn(entries.numel(), generator=generator)
    for flatten in FLATTEN:
        out = torch.full_like(entries, math.nan)
        assert flatten(tensors, out, minuend)
        assert torch.equal(out, minuend - entries)
        # It is the entries that are looked at.
        assert flatten(tensors, out, torch.full_like(entries, math.inf))
    if entries.numel():
        tensors[-1].view(-1)[-1:] = math.nan
        assert all(
            flatten(tensors, torch.empty_like(entries), minuend) is (tensors[-1].numel() == 0) for flatten in FLATTEN
        )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_one_bad_entry_is_found_in_any_tensor(bad: float, number: int) -> None:
    for place in (0, 150_000, 299_999):
        tensors = [torch.full((300_000,), 3e38) for _ in range(3)]
        tensors[number][place] = bad
        out = torch.empty(900_000)
        assert not flatten_finite(tensors, out)
        assert int(flatten_unread(tensors, out)) == 300_000 * number + place
        assert torch.equal(out.isfinite(), torch.cat(tensors).isfinite())


def test_views_that_are_not_contiguous_are_read_in_their_own_order() -> None:
    base = torch.arange(12.0).view(3, 4)
    out = torch.empty(18)
    assert flatten_finite([base.T, base[:, ::2]], out)
    assert out.tolist() == [*base.T.flatten().tolist(), 0.0, 2.0, 4.0, 6.0, 8.0, 10.0]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="float64"):
        flatten_finite([torch.zeros(2, dtype=torch.float64)], torch.empty(2))
    with pytest.raises(ConfigError, match="3 entries do not fill 2"):
        flatten_finite([torch.zeros(3)], torch.empty(2))
    with pytest.raises(ConfigError, match="contiguous"):
        flatten_finite([torch.zeros(2)], torch.empty(4)[::2])
    with pytest.raises(ConfigError, match="minuend"):
        flatten_finite([torch.zeros(2)], torch.empty(2), torch.zeros(3))


@pytest.mark.parametrize("shapes", SHAPES, ids=lambda shapes: str(len(shapes)))
def test_writing_back_is_the_inverse(shapes: list[tuple[int, ...]]) -> None:
    generator = torch.Generator().manual_seed(2)
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    flat = torch.cat([torch.empty(0), *(tensor.reshape(-1) for tensor in tensors)])
    for write in (unflatten, unflatten_torch, unflatten_any):
        targets = [torch.full(shape, math.nan) for shape in shapes]
        write(flat, targets)
        assert all(torch.equal(one, other) for one, other in zip(tensors, targets, strict=True))


def test_only_what_fits_is_written_back_and_nothing_of_the_rest() -> None:
    kept = torch.zeros(2)
    for x, targets in (
        (torch.ones(3), [kept]),
        (torch.ones(4, dtype=torch.float64), [kept, torch.zeros(2)]),
        (torch.ones(4), [kept, torch.zeros(2, dtype=torch.float16)]),
        (torch.ones(6), [kept, torch.zeros(2, 2).T]),
    ):
        with pytest.raises(ConfigError):
            unflatten(x, targets)
    assert kept.tolist() == [0.0, 0.0]


def test_autograd_learns_of_what_is_written() -> None:
    """What a backward pass still needs must not be changed unseen."""
    weight = torch.ones(3, requires_grad=True)
    loss = (weight * weight).sum()
    unflatten_any(torch.zeros(3), [weight])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
