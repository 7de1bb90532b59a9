"""Sums that lose nothing to rounding that could add up: a vector, and beside it what f32 cannot hold of it."""

import torch
from torch import Tensor


def add_compensated(total: Tensor, rounding: Tensor, x: Tensor) -> None:
    """Let ``total + rounding`` grow by ``x``, in place: ``total`` is the nearest f32, ``rounding`` what it lacks.

    The pair holds the sum to about 48 bits, where f32 alone has 24: of n sums the error is about ``n 2^-48``, not
    ``n 2^-24``.

    Args:
        total: f32 ``[d]``.
        rounding: f32 ``[d]``.
        x: f32 or f64 ``[d]``; not modified.

    Example:
        >>> total, rounding = torch.ones(1), torch.zeros(1)
        >>> for _ in range(4):
        ...     add_compensated(total, rounding, torch.full((1,), 2.0**-26))
        >>> total.item() - 1.0, rounding.item() == 2.0**-24
        (0.0, True)
    """
    exact = x.to(torch.float64, copy=True).add_(rounding).add_(total)
    total.copy_(exact)
    rounding.copy_(exact.sub_(total))


def split_rounding(exact: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest f32 of an f64 vector, and what it lacks, f32; ``exact`` is used up.

    Example:
        >>> [part.item() for part in split_rounding(torch.tensor([1.0 + 2.0**-30], dtype=torch.float64))]
        [1.0, 9.313225746154785e-10]
    """
    nearest = exact.to(torch.float32)
    return nearest, exact.sub_(nearest).to(torch.float32)
