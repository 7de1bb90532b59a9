"""The bound ``T`` of probabilities ``p_i = min(1, a_i / T)`` that meet a target; ``a_i = |x_i - centre|``.

``lambda = 1 / T`` in the papers. The expected number of kept entries is concave in ``1 / T`` and the variance convex in
``T``, both piecewise linear: Newton's method approaches either from one side and ends exactly, without a sort.
"""

import torch
from torch import Tensor

from thinwire.kernels.tails import tail_sums

MANY = 100
"""Rounds after which Newton's method has ended on any vector seen; each round costs a pass over the vector."""

_LARGEST = torch.finfo(torch.float32).max
_LEAST = 2.0**-149


def density_bounds(x: Tensor, offsets: Tensor, centres: Tensor, density: float, rounds: int) -> Tensor:
    """Bounds with ``sum p_i = density * size``, approached from below (fewer are kept) in ``rounds`` rounds.

    Wangni et al. 2018, greedy: ``T = sum a_i / (density * size)``, and in each round, with ``I`` the entries below
    ``T``, ``T = sum_I a_i / (density * size - size + |I|)`` while it falls.

    Args:
        x: f32 ``[d]``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        centres: f32 ``[s]``.
        density: expected share of kept entries, above 0, at most 1; for 1 every entry that is not zero is certain.
        rounds: 0 or more.

    Returns:
        f32 ``[s]``, above 0.

    Example:
        >>> x, zero = torch.tensor([8.0, 1.0, 1.0, 2.0]), torch.zeros(1)
        >>> density_bounds(x, torch.tensor([0, 4]), zero, 0.5, 2).tolist()
        [4.0]
    """
    sizes = offsets.to(x.device).diff().to(torch.float64)
    if density >= 1.0:
        return torch.full_like(centres, _LEAST)
    budgets = density * sizes
    bounds = torch.full_like(centres, torch.inf)
    sums = tail_sums(x, offsets, centres, bounds)
    bounds = _bounds(sums[:, 1] / budgets)
    for _ in range(rounds):
        sums = tail_sums(x, offsets, centres, bounds)
        left = budgets - sizes + sums[:, 0]
        better = (left > 0) & (sums[:, 1] > 0)
        lower = torch.minimum(torch.where(better, _bounds(sums[:, 1] / left), bounds), bounds)
        if torch.equal(lower, bounds):
            break
        bounds = lower
    return bounds


def variance_bounds(x: Tensor, offsets: Tensor, variance: float) -> Tensor:
    """Bounds with ``sum x_i**2 (1 / p_i - 1) = variance * sum x_i**2``: the fewest entries for that variance.

    Wangni et al. 2018, closed form: ``T = (variance * sum x_i**2 + sum_I x_i**2) / sum_I |x_i|`` with ``I`` the
    entries below ``T``.

    Args:
        x: f32 ``[d]``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        variance: omega, above 0.

    Returns:
        f32 ``[s]``, above 0.

    Example:
        >>> variance_bounds(torch.tensor([8.0, 1.0, 1.0]), torch.tensor([0, 3]), 1 / 11).tolist()
        [4.0]
    """
    centres = x.new_zeros(offsets.numel() - 1)
    sums = tail_sums(x, offsets, centres, torch.full_like(centres, torch.inf))
    allowed = variance * sums[:, 2]
    bounds = _bounds((allowed + sums[:, 2]) / sums[:, 1])
    for _ in range(MANY):
        sums = tail_sums(x, offsets, centres, bounds)
        better = sums[:, 1] > 0
        lower = torch.minimum(torch.where(better, _bounds((allowed + sums[:, 2]) / sums[:, 1]), bounds), bounds)
        if torch.equal(lower, bounds):
            break
        bounds = lower
    return bounds


def _bounds(numbers: Tensor) -> Tensor:
    """In f32, finite and above 0; of an all-zero segment (0 / 0) the least."""
    return numbers.nan_to_num(0.0, _LARGEST).clamp(_LEAST, _LARGEST).to(torch.float32)
