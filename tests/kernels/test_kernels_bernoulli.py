"""Draws and tail sums: kernels and twins agree bit for bit, whatever the threads and the cut."""

import numpy as np
import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.reduce.truncated_sums import tail_sums, tail_sums_torch
from thinwire.kernels.sample.bernoulli import (
    draw_entries,
    draw_entries_torch,
    entries_above,
    entries_above_torch,
    split_draws,
    split_draws_torch,
)

SIZES = (0, 1, 7, 63, 64, 65, 1024, 4096, 300_001)


@pytest.fixture(params=[1, 2])
def _threads(request: pytest.FixtureRequest) -> None:
    torch.set_num_threads(request.param)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("numel", SIZES)
def test_kernels_and_twins_agree(numel: int) -> None:
    x = torch.from_numpy(np.random.default_rng(numel).standard_t(3, numel).astype(np.float32))
    many = [numel // 50] * 49
    for sizes in ([numel], [numel // 3, 0, numel - numel // 3], [*many, numel - sum(many), 0]):
        offsets = torch.tensor([0, *np.cumsum(sizes)])
        centres = torch.linspace(-0.2, 0.5, len(sizes))
        bounds, none = torch.linspace(1.0, 6.0, len(sizes)), torch.zeros(len(sizes))
        for what in ("powers", "weights", "entries"):
            given = (x, offsets, centres, bounds, what)
            assert torch.equal(tail_sums(*given), tail_sums_torch(*given))  # type: ignore[arg-type]
        for rule in ((centres, bounds, none), (centres, bounds + torch.inf, none + 0.1)):
            found, expected = draw_entries(x, offsets, *rule, 7), draw_entries_torch(x, offsets, *rule, 7)
            assert all(map(torch.equal, found, expected))
        assert all(map(torch.equal, split_draws(x, offsets, bounds, 7), split_draws_torch(x, offsets, bounds, 7)))
        assert all(map(torch.equal, entries_above(x, offsets, bounds), entries_above_torch(x, offsets, bounds)))


@pytest.mark.usefixtures("_threads")
def test_sums_of_a_segment_that_is_summed_in_parts_agree() -> None:
    x = torch.from_numpy(np.random.default_rng(1).standard_t(3, 1_200_000).astype(np.float32))
    given = (x, torch.tensor([0, 100_000, 1_200_000]), torch.zeros(2), torch.ones(2))
    assert torch.equal(tail_sums(*given), tail_sums_torch(*given))


def test_wrong_arguments_are_refused() -> None:
    x, offsets, one = torch.zeros(4), torch.tensor([0, 4]), torch.ones(1)
    with pytest.raises(ConfigError, match="float32"):
        split_draws(x.double(), offsets, one, 1)
    with pytest.raises(ConfigError, match="segments"):
        entries_above(x, offsets, torch.ones(2))
    with pytest.raises(ConfigError, match="key"):
        split_draws(x, offsets, one, -1)
    with pytest.raises(ConfigError, match="possible"):
        tail_sums(x, offsets, one, one, "cubes")  # type: ignore[arg-type]
