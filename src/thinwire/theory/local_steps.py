"""How many local steps are free."""

import math

from thinwire.errors import ConfigError


def max_local_steps(
    *, steps: int, workers: int, batch_size: int, gamma: float = 1.0, convex: bool = False, asynchronous: bool = False,
    constant: float = 1.0,
) -> float:  # fmt: skip
    """H up to which the rate of Qsparse-local-SGD stays that of plain SGD, ``O(1/sqrt(bRT))`` or ``O(1/(bRT))``.

    Corollaries of Basu et al. 2019 with T steps, R workers, batches of b and contraction gamma:

    ============== ===================================== =================================
    H = c times    smooth, not convex                    strongly convex
    ============== ===================================== =================================
    synchronous    ``gamma T^(1/4) / (bR)^(3/4)``        ``gamma sqrt(T / (bR))``
    asynchronous   ``sqrt(gamma) T^(1/8) / (bR)^(3/8)``  ``sqrt(gamma) (T / (bR))^(1/4)``
    ============== ===================================== =================================

    They are orders, not bounds: the constant c depends on smoothness and noise and must be fitted; ``gamma = 1`` is
    local SGD. Below 1 the result says that even compression at every step slows the rate down.

    Args:
        steps: T.
        workers: R.
        batch_size: b, of one worker.
        gamma: contraction of the compressor, in (0, 1]: 1 minus its error constant.
        convex: strongly convex instead of merely smooth.
        asynchronous: each worker has its own schedule.
        constant: c.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> max_local_steps(steps=10**6, workers=4, batch_size=25, convex=True)
        100.0
        >>> max_local_steps(steps=10**6, workers=4, batch_size=25, gamma=0.01, convex=True)
        1.0
    """
    if min(steps, workers, batch_size) < 1 or not 0.0 < gamma <= 1.0 or not constant > 0.0:
        raise ConfigError(
            f"T = {steps}, R = {workers}, b = {batch_size}, gamma = {gamma}, c = {constant} were given; T, R and b are "
            "at least 1, gamma is above 0 and at most 1, c above 0"
        )
    total = batch_size * workers
    free = gamma * math.sqrt(steps / total) if convex else gamma * steps**0.25 / total**0.75
    return constant * (math.sqrt(free) if asynchronous else free)
