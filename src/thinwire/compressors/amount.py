"""How many entries a sparsifier keeps in each segment."""

import functools

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.compressors.base import Compressor
from thinwire.errors import ConfigError
from thinwire.kernels.random.philox import uniform
from thinwire.layout import Segments
from thinwire.payloads import Sparse
from thinwire.random import Key


def check_share(name: str, share: float | None) -> None:
    """Raise :class:`ConfigError` unless a share of the entries, if given, is above 0 and at most 1.

    Example:
        >>> check_share("sample", 0.01)
    """
    if share is not None and not 0.0 < share <= 1.0:
        raise ConfigError(f"{name} {share} was given; it is a share of the entries: above 0, at most 1 (1% is 0.01)")


def check_either(first: str, one: float | None, second: str, other: float | None) -> None:
    """Raise :class:`ConfigError` unless exactly one of two numbers is given.

    Example:
        >>> check_either("k", 3, "density", None)
    """
    if (one is None) == (other is None):
        raise ConfigError(f"give either {first} or {second}, not {'both' if one is not None else 'neither'}")


def check_amount(k: float | None, density: float | None) -> None:
    """Raise :class:`ConfigError` unless exactly one of ``k`` and ``density`` is given and makes sense."""
    check_either("k", k, "density", density)
    check_share("density", density)
    if k is not None and not (0.0 < k < 1.0 or (k >= 1 and float(k).is_integer())):
        raise ConfigError(
            f"k = {k} was given; it is a whole number of entries, or a probability strictly between 0 and 1"
        )


def kept_share(k: float | None, density: float | None, numel: int) -> float:
    """``k / d`` for a segment of ``numel`` entries; for ``k < 1`` the expected share (Stich et al. 2018)."""
    if k is not None and k < 1.0:
        return k / numel
    return _count(k, density, numel) / numel


def draw_counts(k: float | None, density: float | None, segments: Segments, key: Key) -> Tensor:
    """Entries to keep in each segment: int64 ``[segments.count]``.

    ``density`` keeps ``max(1, round(density * size))`` of a segment, ``k`` keeps ``min(k, size)``; with
    ``0 < k < 1`` a segment keeps one entry with probability ``k``, else none.
    """
    if k is not None and k > segments.numel:
        raise ConfigError(f"k = {k:g} entries were asked for, but the vector has only {segments.numel}")
    if k is not None and k < 1.0:
        drawn = uniform(key.fold("keep").bits64(), 0, segments.count) < k
        return drawn.to(torch.int64) * (segments.offsets().diff() > 0)
    return _counts(k, density, segments)


def most_counts(k: float | None, density: float | None, segments: Segments) -> Tensor:
    """The most entries that :func:`draw_counts` can ask for: int64 ``[segments.count]``."""
    return _counts(1.0 if k is not None and k < 1.0 else k, density, segments)


def sparse_outline(counts: Tensor, values: Compressor, segments: Segments) -> Sparse:
    """The outline of a payload with so many entries of each segment, compressed by ``values``."""
    kept = kept_segments(segments, counts)
    indices = torch.empty(kept.numel, dtype=torch.int64, device="meta")
    return Sparse(segments.numel, indices, values.outline(kept))


def kept_segments(segments: Segments, counts: Tensor) -> Segments:
    """The segments of the kept values, which follow those of the vector; one segment of nothing is no segment."""
    if segments.count == 1:
        return Segments.whole(int(counts.item()))
    return Segments.of_sizes(counts.tolist())


def _count(k: float | None, density: float | None, size: int) -> int:
    if size == 0:
        return 0
    if density is not None:
        return min(size, max(1, int(density * size + 0.5)))
    return min(size, int(k or 0))


@functools.lru_cache(maxsize=64)
def _counts(k: float | None, density: float | None, segments: Segments) -> Tensor:
    sizes: list[int] = segments.offsets().diff().tolist()
    return torch.tensor([_count(k, density, size) for size in sizes], dtype=torch.int64, device=CPU)
