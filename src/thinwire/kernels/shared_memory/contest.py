"""An addition contest: threads add to the same few counters, and what is missing at the end was lost."""

from typing import Any

import numpy as np
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.jit.compiling import kernel
from thinwire.kernels.jit.hints import borrowed
from thinwire.kernels.shared_memory.atomics import load_shared
from thinwire.kernels.shared_memory.shared import Shared
from thinwire.kernels.shared_memory.variants import STOP, Variant, add_entry, begin_together, number_of

LARGEST_EXACT = {torch.int64: 2**62, torch.float64: 2**53, torch.float32: 2**24}
"""Up to this number every whole number is one of the type: counting by ones is exact."""


def add_ones(shared: Shared, variant: Variant, num: int, num_threads: int = 1) -> int:
    """Add 1 to the entries of the vector in turn, ``num`` times: what one of the threads does.

    Every addition is one operation of the variant, with its lock if it has one. The call holds no GIL. It begins when
    ``num_threads`` threads have called it, and ends early if the vector's threads are told to.

    Args:
        shared: of int64, float64 or float32.
        variant: how it is added.
        num: additions, 0 or more.
        num_threads: how many threads begin together.

    Returns:
        How many additions were made.

    Raises:
        ConfigError: a number below 0, or more additions than the type can count.

    Example:
        >>> shared = Shared.around(torch.zeros(2, dtype=torch.int64))
        >>> add_ones(shared, "fetch-and-add", 5), shared.vector.tolist()
        (5, [3, 2])
    """
    _check(shared, num)
    vector, locks, gates, control = shared.arrays()
    one = np.ones(1, vector.dtype)
    return int(_add_ones(vector, locks, gates, control, number_of(variant), one, num, num_threads))


def add_ones_torch(shared: Shared, variant: Variant, num: int, num_threads: int = 1) -> int:
    """:func:`add_ones` of a thread alone, in torch operations."""
    _check(shared, num)
    number_of(variant)
    size = shared.vector.numel()
    shared.vector.add_(num // size)
    shared.vector[: num % size] += 1
    return num


def _check(shared: Shared, num: int) -> None:
    vector = shared.vector
    if num < 0:
        raise ConfigError(f"{num} additions were asked for; 0 is the least")
    largest = LARGEST_EXACT[vector.dtype]
    if -(-num // vector.numel()) > largest:
        raise ConfigError(
            f"{num} additions to {vector.numel()} counters of {vector.dtype} are more than these hold exactly, "
            f"{largest:,} each; take more counters, or int64"
        )


@kernel
def _add_ones(
    vector: Any, locks: Any, gates: Any, control: Any, variant: int, one: Any, num: int, num_threads: int
) -> int:
    # A count of references would be one more thing that the threads change in turn.
    vector, locks, gates, control = borrowed(vector), borrowed(locks), borrowed(gates), borrowed(control)
    amount = one[0]
    place = 0
    begin_together(control, num_threads)
    for j in range(num):
        if j & 1023 == 0 and load_shared(control, STOP) != 0:
            return j
        add_entry(variant, vector, locks, gates, place, amount)
        place += 1
        if place == vector.size:
            place = 0
    return num
