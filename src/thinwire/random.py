"""Randomness with an address: a draw depends on its key alone, never on what was drawn before it."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """Names one stream of random numbers by a seed and a path.

    There is no generator state to save or to synchronise: a worker that knows the seed, its rank and the step
    can draw what any worker drew at any step. Two keys that differ anywhere give independent streams.

    Args:
        seed: the experiment's seed, any Python integer.
        path: what the numbers are for, from the general to the particular, as integers and strings.

    Example:
        >>> step = Key(seed=1).fold("step", 10)
        >>> step.fold("rank", 0).bits64() == step.fold("rank", 0).bits64()
        True
        >>> step.fold("rank", 0).bits64() == step.fold("rank", 1).bits64()
        False
    """

    seed: int
    path: tuple[int | str, ...] = ()

    def fold(self, *parts: int | str) -> "Key":
        """The key of a narrower purpose: the same seed, a longer path."""
        return Key(self.seed, self.path + parts)

    def bits64(self) -> int:
        """64 bits that address this stream: the BLAKE2b digest of seed and path, in ``[0, 2**64)``.

        They are the key of the counter-based generator in :mod:`thinwire.kernels.philox`.
        """
        text = repr((self.seed, self.path)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
