"""One rule for the types of vectors, over every registered compressor."""

from typing import Any

import pytest
import torch
from compressor_cases import KEY, bits, compress
from torch import Tensor

from thinwire.compressors.base import compress_residual
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.wire import encode, max_num_bytes

NUMEL = 2311
"""A length that no other suite uses: what is kept of it is made under the strange default."""


def cuts() -> list[Segments]:
    return [Segments.whole(NUMEL), Segments.uniform(NUMEL, 301), Segments.of_sizes([300, 0, NUMEL - 300])]


def vector() -> Tensor:
    noise = torch.randn(NUMEL, generator=torch.Generator().manual_seed(3), dtype=torch.float32)
    return noise * noise.abs()


def outcomes(compressor: Any, salt: int) -> list[Any]:
    """Messages, outlines, sums and what is left out, over all cuts."""
    found: list[Any] = []
    for segments in cuts():
        payload = compress(compressor, vector(), segments, KEY.fold(salt))
        assert payload is not None
        total, out = torch.ones(NUMEL, dtype=torch.float32), torch.empty(NUMEL, dtype=torch.float32)
        payload.add_to(total, 0.3)
        left = compress_residual(compressor, vector(), total, 0.5, out, KEY, segments)
        dense = payload.to_dense()
        assert dense.dtype == torch.float32
        found += [bits(encode(payload)), bits(encode(left)), bits(total), bits(out), bits(dense)]
        found += [max_num_bytes(compressor.outline(segments)), compressor.traits(NUMEL)]
    return found


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_type_of_torch_changes_nothing(compressor: Any, default: torch.dtype) -> None:
    try:
        torch.set_default_dtype(default)
        found = outcomes(compressor, 1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == outcomes(compressor, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64], ids=str)
def test_a_vector_of_another_type_is_refused_by_name(compressor: Any, dtype: torch.dtype) -> None:
    x, residual = vector().to(dtype), vector()
    reason = rf"a vector of {dtype} was given; compressors take float32: give x\.float\(\)"
    with pytest.raises(ConfigError, match=reason):
        compressor.compress(x, KEY, Segments.whole(NUMEL))
    before = bits(residual)
    with pytest.raises(ConfigError, match=reason):
        compress_residual(compressor, x, residual, 1.0, residual, KEY, Segments.whole(NUMEL))
    assert bits(residual) == before


def test_what_is_no_contiguous_vector_of_that_length_is_refused(compressor: Any) -> None:
    x = vector()
    for wrong in (x[:-1], x.view(1, -1), x.repeat(2)[::2]):
        with pytest.raises(ConfigError, match="compressors take a contiguous vector of that length"):
            compressor.compress(wrong, KEY, Segments.whole(NUMEL))
    with pytest.raises(ConfigError, match="a list was given; compressors take a tensor of float32"):
        compressor.compress([1.0], KEY, Segments.whole(1))
