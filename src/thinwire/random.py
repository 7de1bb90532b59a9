"""Randomness with an address: a draw depends on its key alone, never on what was drawn before it."""

import hashlib
import operator
from dataclasses import dataclass

from thinwire.errors import ConfigError

_PLAIN = frozenset((int, str))


@dataclass(frozen=True, slots=True)
class Key:
    """Names one stream of random numbers by a seed and a path.

    There is no generator state to save or to synchronise: a worker that knows the seed, its rank and the step
    can draw what any worker drew at any step. Two keys that differ anywhere give independent streams. Equal integers
    are the same key, whatever type holds them.

    Args:
        seed: the experiment's seed, any integer.
        path: what the numbers are for, from the general to the particular, as integers and strings.

    Raises:
        ConfigError: a seed that is no integer.

    Example:
        >>> step = Key(seed=1).fold("step", 10)
        >>> step.fold("rank", 0).bits64() == step.fold("rank", 0).bits64()
        True
        >>> step.fold("rank", 0).bits64() == step.fold("rank", 1).bits64()
        False
    """

    seed: int
    path: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.seed) is not int:
            object.__setattr__(self, "seed", _integer(self.seed, "a seed"))

    def fold(self, *parts: int | str) -> "Key":
        """The key of a narrower purpose: the same seed, a longer path."""
        return Key(self.seed, self.path + parts)

    def bits64(self) -> int:
        """64 bits that address this stream: the BLAKE2b digest of seed and path, in ``[0, 2**64)``.

        They are the key of the counter-based generator in :mod:`thinwire.kernels.random.philox`.

        Raises:
            ConfigError: a part of the path is neither an integer nor a string.
        """
        path = self.path
        # numpy's integers, for one, are written otherwise than Python's.
        if not _PLAIN.issuperset(map(type, path)):
            path = tuple([_plain(part) for part in path])
        text = repr((self.seed, path)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _plain(part: object) -> int | str:
    return str(part) if isinstance(part, str) else _integer(part, "a part of a random key")


def _integer(given: object, what: str) -> int:
    try:
        return operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(
            f"{what} of {given!r} ({type(given).__name__}) was given; integers and strings address random numbers, and "
            "a seed is an integer: give int(...) of it"
        ) from None
