"""Kernels on several threads: how work is shared out, and the threads that do it.

A kernel holds no GIL, so plain threads run it in parallel. Their number is torch's own,
``torch.get_num_threads()``: what ``OMP_NUM_THREADS`` or ``torch.set_num_threads`` says holds here too. No result
depends on it.
"""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

_LEAST = 1 << 17
"""Entries that make a further thread worth its start, about 20 microseconds."""


def shares(numel: int, unit: int = 1) -> list[tuple[int, int]]:
    """``[0, numel)`` cut into about equal ranges, one for each thread; one range if there is little to do.

    Args:
        numel: number of entries, 0 or more.
        unit: every border but the last is a multiple of it.

    Returns:
        At least one ``(start, stop)``, ascending; together they cover every entry once.

    Example:
        >>> shares(1000)
        [(0, 1000)]
    """
    if numel < 2 * _LEAST:
        return [(0, numel)]
    num = max(1, min(torch.get_num_threads(), numel // _LEAST))
    num_units = -(-numel // unit)
    borders = [min(numel, num_units * part // num * unit) for part in range(num)] + [numel]
    return list(itertools.pairwise(borders))


def run(kernel: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """``kernel(*arguments)`` for every call, each on a thread of its own; the results in order.

    The first call is made by the caller's thread. The kernel must not use :func:`run` itself. If a call raises,
    the others are finished first.

    Example:
        >>> run(max, [(1, 2), (4, 3)])
        [2, 4]
    """
    if len(calls) == 1:
        return [kernel(*calls[0])]
    pool = _pool(os.getpid(), len(calls) - 1)
    futures = [pool.submit(kernel, *arguments) for arguments in calls[1:]]
    try:
        first = kernel(*calls[0])
    finally:
        errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None:
            raise error
    return [first, *(future.result() for future in futures)]


@functools.cache
def _pool(process: int, num_threads: int) -> ThreadPoolExecutor:
    # By process: a fork takes no threads with it.
    return ThreadPoolExecutor(num_threads, thread_name_prefix="thinwire-kernel")
