"""Vectors of such large numbers that their messages would not be finite."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.kernels.flat.finite import LARGEST, is_finite
from thinwire.payloads import Payload
from thinwire.payloads.reach import reach

P = TypeVar("P", bound=Payload)

_ORDINARY = 1e30
"""A sum of squares; none of the numbers is above 1e15 then."""

_HALVINGS = (0, 4, 8, 16, 32, 64, 120)


def shortened(compress: Callable[[Tensor], P], x: Tensor) -> P:
    """``compress(x)``; of a shorter multiple of ``x`` if what that stands for would not be finite, though ``x`` is.

    Sums of numbers near the largest f32, 3.4e38, pass it. A message of ``x * 2**-h`` then says as much as can be said:
    the direction, and a part of the length. Whoever has a memory keeps the rest.

    Example:
        >>> from thinwire.payloads import Dense
        >>> x = torch.tensor([3e38, 1.0])
        >>> shortened(lambda x: Dense(2 * x), x).to_dense()[0] > 1e37
        tensor(True)
    """
    payload = compress(x)
    if reach(payload) < LARGEST or not is_finite(x):
        return payload
    for halvings in _HALVINGS:
        payload = compress(x * 2.0**-halvings) if halvings else payload
        if is_finite(payload.to_dense()):
            break
    return payload


def magnified(kept: Tensor, factors: Tensor) -> Tensor:
    """``kept * factors``; the largest number where that would be infinite, though the entry is not.

    ``kept`` is used up; a factor is at most the length of a vector.

    Example:
        >>> magnified(torch.tensor([1.0, -3e38]), torch.tensor([10.0, 10.0])).tolist()
        [10.0, -3.40282...e+38]
    """
    if kept.is_cpu:
        array = array_of(kept)
        # A vector has at most 2**48 entries.
        if np.vdot(array, array) < _ORDINARY:
            return kept.mul_(factors)
    products = kept * factors
    return torch.where(torch.isfinite(kept), products.clamp(-LARGEST, LARGEST), products)
