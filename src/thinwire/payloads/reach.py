"""How large the numbers can be that a payload stands for, from its scales alone."""

import math

from torch import Tensor

from thinwire.payloads.base import Payload
from thinwire.payloads.codebook import Codebook
from thinwire.payloads.constant import Constant
from thinwire.payloads.cosine import Cosine
from thinwire.payloads.dense import Dense
from thinwire.payloads.drawn import Drawn
from thinwire.payloads.grid import Grid
from thinwire.payloads.joined import Joined
from thinwire.payloads.levels import Levels
from thinwire.payloads.low_rank import LowRank
from thinwire.payloads.powers import Powers
from thinwire.payloads.rotated import Rotated
from thinwire.payloads.signs import Signs
from thinwire.payloads.sparse import Sparse
from thinwire.payloads.total import Total


def reach(payload: Payload) -> float:
    """No entry, nor any number on the way to one, is larger in magnitude; inf where one is NaN or inf.

    It takes time for the numbers that are sent as they are, scales among them, not for the vector.

    Example:
        >>> import torch
        >>> reach(Sparse(9, torch.tensor([3]), Dense(torch.tensor([-2.0]))))
        2.0
    """
    match payload:
        case Dense() | Constant():
            return _largest(payload.values)
        case Levels() | Signs() | Powers():
            return _largest(payload.scales)
        case Codebook():
            return _largest(payload.scales) * _largest(payload.table)
        case Grid():
            return _largest(payload.lows) + _largest(payload.steps) * (payload.num_codes - 1)
        case Sparse() | Drawn():
            return reach(payload.values)
        case Rotated():
            # Norms are kept, but sums are scaled down only when all are made.
            return reach(payload.inner) * max(1, min(payload.block or payload.numel, payload.numel))
        case Cosine():
            return reach(payload.inner) * (2 * payload.side if payload.side**2 <= payload.numel else 1)
        case LowRank():
            return _largest(payload.left) * _largest(payload.right) * payload.left.shape[1]
        case Total():
            return sum(map(reach, payload.parts))
        case Joined():
            return max(map(reach, payload.parts))
        case _:
            return _largest(payload.to_dense())


def _largest(numbers: Tensor) -> float:
    if not numbers.numel():
        return 0.0
    least, most = numbers.aminmax()
    largest = max(-float(least), float(most))
    return math.inf if math.isnan(largest) else largest
