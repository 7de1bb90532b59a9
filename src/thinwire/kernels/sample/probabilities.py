"""The bound ``T`` of probabilities ``p_i = min(1, a_i / T)`` that meet a target; ``a_i = |x_i - centre|``.

``lambda = 1 / T`` in the papers. The expected number of kept entries is concave in ``1 / T`` and the variance convex in
``T``, both piecewise linear: Newton's method approaches either from one side and ends exactly, without a sort.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.kernels.reduce.truncated_sums import tail_sums
from thinwire.kernels.sample.bernoulli import entries_above

MANY = 100
"""Rounds after which Newton's method has ended on any vector seen; each round costs a pass over the vector."""

_LONG = 1 << 18
"""Entries of a segment from which on a sample tells enough."""

_STRIDE = 61
"""One in so many is in the sample."""

_MOST_KEPT = 0.25
"""Share of the entries above which keeping them apart saves nothing."""

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
    sizes = to_device(offsets, x.device).diff().to(torch.float64)
    if density >= 1.0:
        return torch.full_like(centres, _LEAST)
    budgets = density * sizes
    tails = _tails(x, offsets, centres, lambda part, cut: density_bounds(part, cut, centres, density, rounds))
    bounds = _bounds(tails(None)[:, 1] / budgets)
    for _ in range(rounds):
        sums = tails(bounds)
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
    zeros = x.new_zeros(offsets.numel() - 1)
    tails = _tails(x, offsets, zeros, lambda part, cut: variance_bounds(part, cut, variance))
    sums = tails(None)
    allowed = variance * sums[:, 2]
    bounds = _bounds((allowed + sums[:, 2]) / sums[:, 1])
    for _ in range(MANY):
        sums = tails(bounds)
        better = sums[:, 1] > 0
        lower = torch.minimum(torch.where(better, _bounds((allowed + sums[:, 2]) / sums[:, 1]), bounds), bounds)
        if torch.equal(lower, bounds):
            break
        bounds = lower
    return bounds


def _tails(
    x: Tensor, offsets: Tensor, centres: Tensor, estimate: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor | None], Tensor]:
    """:func:`.truncated_sums.tail_sums` for any bounds (None for none), in few passes over a long vector.

    What is below half the bounds that ``estimate`` finds on a sample is summed up once, and what is above is few and
    kept apart. Where the bounds turn out to be lower the vector is summed again.
    """

    def direct(bounds: Tensor | None) -> Tensor:
        return tail_sums(x, offsets, centres, torch.full_like(centres, torch.inf) if bounds is None else bounds)

    sizes = offsets.diff()
    if not sizes.numel() or int(sizes.min()) < _LONG or bool((centres != 0).any()):
        return direct
    sample, places = x[::_STRIDE].contiguous(), (offsets + (_STRIDE - 1)) // _STRIDE
    lows = estimate(sample, places) * 0.5
    if entries_above(sample, places, lows)[0].numel() > _MOST_KEPT * sample.numel():
        return direct
    indices, kept = entries_above(x, offsets, lows)
    cut = to_device(torch.searchsorted(indices, to_device(offsets, indices.device)), offsets.device)
    below = tail_sums(x, offsets, centres, lows)

    def with_few(bounds: Tensor | None) -> Tensor:
        if bounds is None:
            bounds = torch.full_like(centres, torch.inf)
        return below + tail_sums(kept, cut, centres, bounds) if bool((bounds >= lows).all()) else direct(bounds)

    return with_few


def _bounds(numbers: Tensor) -> Tensor:
    """In f32, finite and above 0; of an all-zero segment (0 / 0) the least."""
    return numbers.nan_to_num(0.0, _LARGEST).clamp(_LEAST, _LARGEST).to(torch.float32)
