"""What the codes would take at the limit: bits of supports, signs and levels."""

import math

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.payloads import Levels, Payload, Signs, Sparse


def log2_binomial(numel: int, count: int) -> float:
    """``log2 C(numel, count)``: bits that say which ``count`` of ``numel`` entries are kept, if all sets are alike.

    Example:
        >>> round(log2_binomial(10, 3), 9) == round(math.log2(120), 9)
        True
    """
    if not 0 < count < numel:
        return 0.0
    return (math.lgamma(numel + 1) - math.lgamma(count + 1) - math.lgamma(numel - count + 1)) / math.log(2)


def order_zero(symbols: Tensor, num_symbols: int) -> float:
    """Empirical entropy in bits a symbol, each taken on its own: ``-sum p log2 p`` over the shares ``p``.

    Args:
        symbols: integers in ``[0, num_symbols)``, any shape.
        num_symbols: how many there are.

    Example:
        >>> order_zero(torch.tensor([0, 1, 2, 3]), 4)
        2.0
    """
    if symbols.numel() == 0:
        return 0.0
    counts = torch.zeros(num_symbols, dtype=torch.int64, device=CPU)
    for part in torch.split(symbols.reshape(-1), 1 << 22):  # bincount widens to int64
        counts += torch.bincount(part, minlength=num_symbols)
    shares = counts[counts > 0].to(torch.float64) / symbols.numel()
    return float(-(shares * shares.log2()).sum().clamp(max=0.0))


def entropy_bits(payload: Payload) -> float | None:
    """Bits that what is coded has, scales and headers left out; None for values that are sent as they are.

    A support counts as independent (:func:`log2_binomial`), signs of a sparse payload count 1 bit each, levels and
    dense signs their :func:`order_zero` entropy.

    Example:
        >>> from thinwire.payloads import Dense
        >>> entropy_bits(Dense(torch.zeros(3))) is None
        True
    """
    match payload:
        case Sparse():
            values = _values_bits(payload.values)
            return None if values is None else log2_binomial(payload.numel, payload.indices.numel()) + values
        case Levels():
            return payload.numel * order_zero(payload.levels() + payload.num_levels, 2 * payload.num_levels + 1)
        case Signs():
            return payload.numel * _binary_entropy(_num_ones(payload.bits), payload.numel)
        case _:
            return None


def _values_bits(values: Payload) -> float | None:
    return float(values.numel) if isinstance(values, Signs) else entropy_bits(values)


def _num_ones(packed: Tensor) -> int:
    return sum(int((packed >> bit & 1).sum()) for bit in range(8))


def _binary_entropy(ones: int, count: int) -> float:
    shares = [share for share in (ones / max(count, 1), 1.0 - ones / max(count, 1)) if share > 0.0]
    return max(0.0, -sum(share * math.log2(share) for share in shares))
