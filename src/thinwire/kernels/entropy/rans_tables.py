"""What rANS looks up for every symbol and slot, made of the frequencies."""

from typing import Any

import numpy as np

TOTAL = 4096
"""What the frequencies add up to."""


def entries_of(table: Any) -> Any:
    """Two words of 32 bits for every symbol, from which an encoder has ``4096 - f`` and the quotient of a division.

    A state ``x < f * 2**20`` becomes ``4096 * q + x - q * f + c = x + q * (4096 - f) + c``, ``q = floor(x / f)``. The
    first word has ``c`` from bit 0 (13 bits), ``4096 - f`` from bit 13 (12 bits; nothing is asked of ``f = 0``) and
    ``s`` from bit 28, the second is ``m < 2**32``: ``q = floor((x + a) * m / 2**k)`` with ``k = 32 + s``, the largest
    ``s`` with ``2**s < f``. One symbol at most has ``a = 1``; a third word after all others is its first one.

    - ``a = 0``, ``m = ceil(2**k / f)``, ``e = m * f - 2**k``: ``x * m / 2**k`` is more than ``x / f``, by
      ``x * e / (f * 2**k)``, which must stay below the ``1 / f`` that is left to the next integer: ``x * e < 2**k``.
      It does for ``f <= 2048``, since ``x * e < f**2 * 2**20 <= 2**(2 * s + 22) <= 2**k`` if ``s <= 10``. Above, it
      does if ``e <= f / 2``, since ``f * 2**20 * f / 2 <= 2**43 = 2**k``.
    - ``a = 1``, ``m = floor(2**k / f)``, ``e = 2**k - m * f > 0``: ``(x + 1) * m / 2**k`` is less than ``(x + 1) / f``,
      by at most ``1 / f`` if ``(x + 1) * e <= 2**k``: then its integer part is that of ``x / f``. The two ``e`` add up
      to ``f``, so that this one is below ``f / 2`` where the first is above.
    - ``f = 1`` would need ``m = 2**32``. With ``m = 2**32 - 1`` the quotient of ``x >= 1`` is one too small, and ``c``
      is larger by the 4095 that this takes away.

    Args:
        table: int64 ``[n]``, frequencies with the sum 4096.

    Returns:
        uint32 ``[2 * n + 1]``.

    Example:
        >>> entries_of(np.array([4095, 1])).tolist()
        [2952798208, 2148008064, 33554430, 4294967295, 2952798208]
    """
    words = np.zeros(2 * table.size + 1, np.uint32)
    begins = np.cumsum(table) - table
    for symbol in np.flatnonzero(table).tolist():
        frequency, begin = int(table[symbol]), int(begins[symbol])
        shift, multiplier = 0, (1 << 32) - 1
        if frequency > 1:
            shift = (frequency - 1).bit_length() - 1
            multiplier = -(-(1 << 32 + shift) // frequency)
        else:
            begin += TOTAL - 1
        above = multiplier * frequency - (1 << 32 + shift)
        raised = frequency > TOTAL // 2 and above > frequency // 2
        words[2 * symbol] = begin | (TOTAL - frequency) << 13 | shift << 28
        words[2 * symbol + 1] = multiplier - raised
        if raised:
            words[-1] = words[2 * symbol]
    return words


def lookup_of(table: Any) -> Any:
    """For every slot: ``f - 1`` in the 12 low bits, ``slot - c`` in the next 12, the symbol in the top 8.

    Example:
        >>> lookup_of(np.array([4095, 1])).tolist()[4094:]
        [16773118, 16777216]
    """
    symbols = np.repeat(np.arange(table.size), table)
    places = np.arange(TOTAL) - (np.cumsum(table) - table)[symbols]
    return (table[symbols] - 1 | places << 12 | symbols << 24).astype(np.uint32)
