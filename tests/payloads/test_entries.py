"""Places and values of what payloads say something of."""

import pytest
import torch

from thinwire.layout import Segments
from thinwire.payloads import Concat, Dense, Payload, SeededSparse, Sparse
from thinwire.payloads.entries import entries, num_entries

SPARSE = Sparse(9, torch.tensor([0, 4, 8]), Dense(torch.tensor([1.0, -0.5, 2.0], dtype=torch.bfloat16)))
DRAWN = SeededSparse(Dense(torch.tensor([3.0, -1.0])), Segments.of_sizes([1, 1]), 5, Segments.of_sizes([4, 3]))


@pytest.mark.parametrize(
    "payload", [SPARSE, DRAWN, Dense(torch.arange(3.0)), Concat((DRAWN, Dense(torch.ones(2)), SPARSE))]
)
def test_the_entries_make_up_the_vector(payload: Payload) -> None:
    places, values = entries(payload)
    assert values.dtype == torch.float32
    assert num_entries(payload) == len(places) == len(values)
    dense = torch.zeros(payload.numel)
    dense[places] = values
    assert torch.equal(dense, payload.to_dense())
    assert bool((places.diff() > 0).all())
