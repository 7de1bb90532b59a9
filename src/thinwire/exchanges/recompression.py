"""Vectors that are compressed again on their way, and what that leaves out."""

import torch
from torch import Tensor

from thinwire.arrays import zeros
from thinwire.compressors.base import Compressor, segment_traits
from thinwire.errors import ConfigError
from thinwire.exchanges.reading import EXACT_KINDS
from thinwire.kernels.flat.finite import is_finite
from thinwire.layout import Segments
from thinwire.memory.sender import first_nonfinite
from thinwire.payloads import Dense, Payload, Sparse
from thinwire.random import Key
from thinwire.wire import encoded_num_bytes, kinds_in, max_num_bytes


def recompress(vector: Tensor, compressor: Compressor, key: Key, segments: Segments) -> Payload:
    """The message for ``vector`` (f32 ``[d]``), which afterwards holds what the message leaves out.

    A vector that is not finite must not be compressed: its first offending entry is sent instead.

    Example:
        >>> from thinwire.compressors import TopK
        >>> vector = torch.tensor([1.0, -3.0])
        >>> payload = recompress(vector, TopK(k=1), Key(0), Segments.whole(2))
        >>> payload.to_dense().tolist(), vector.tolist()
        ([0.0, -3.0], [1.0, 0.0])
    """
    if not is_finite(vector):
        return first_nonfinite(vector)
    payload = compressor.compress(vector, key, segments)
    payload.add_to(vector, -1.0)
    return payload


def max_relayed_num_bytes(compressor: Compressor, segments: Segments) -> int:
    """What a message of :func:`recompress` takes at most.

    Example:
        >>> from thinwire.compressors import TopK
        >>> max_relayed_num_bytes(TopK(k=10), Segments.whole(1000))
        67
    """
    index = torch.empty(min(1, segments.numel), dtype=torch.int64, device="meta")
    entry = Sparse(segments.numel, index, Dense(torch.empty(index.numel(), dtype=torch.float32, device="meta")))
    return max(max_num_bytes(compressor.outline(segments)), max_num_bytes(entry))


def relayed_kinds(compressor: Compressor, segments: Segments) -> frozenset[int]:
    """The kinds of payloads that a message of :func:`recompress` holds, or that of a part of the vector.

    Example:
        >>> from thinwire.compressors import Sign
        >>> sorted(relayed_kinds(Sign(), Segments.whole(1000)))
        [1, 2, 4, 14]
    """
    return kinds_in(compressor.outline(segments)) | EXACT_KINDS


def max_exact_num_bytes(numel: int) -> int:
    """What a message of :func:`smallest_exact` or :func:`smaller` takes at most: the dense vector is never longer."""
    return max_num_bytes(Dense(torch.empty(numel, dtype=torch.float32, device="meta")))


def smallest_exact(vector: Tensor) -> Payload:
    """The vector, exact up to the sign of zero, dense or sparse, whichever is encoded in fewer bytes."""
    indices = vector.nonzero().reshape(-1)
    sparse = Sparse(vector.numel(), indices, Dense(vector[indices]))
    return smaller(sparse, Dense(vector))


def smaller(sparse: Sparse, dense: Dense) -> Payload:
    """Of two payloads for one vector, the one that is encoded in fewer bytes."""
    return sparse if encoded_num_bytes(sparse) < encoded_num_bytes(dense) else dense


def check_second(
    compressor: Compressor | None, remember: bool, field: str, segments: Segments, device: torch.device
) -> None:
    """Refuse a compressor of sums that does not fit them, or whose memory would grow without bound.

    Raises:
        ConfigError: more entries to keep than there are, or a memory for an operator whose error is 1 or more.
    """
    if compressor is None:
        return
    compressor.compress(zeros(segments.numel, device), Key(0), segments)
    error = segment_traits(compressor, segments).error
    if remember and error >= 1.0:
        raise ConfigError(
            f"{field} = {compressor} is not a contraction on segments of {max(segments.distinct_sizes(), default=0)} "
            f"entries: its error constant is {error:.3g}, and what it leaves out would grow without bound. Use the "
            "scaled form (scaled=True), or remember=False if it is unbiased"
        )


def check_remember(compressor: Compressor | None, remember: bool, field: str) -> None:
    """Refuse ``remember=False`` where nothing is left out.

    Raises:
        ConfigError: as said.
    """
    if compressor is None and not remember:
        raise ConfigError(f"remember=False has no effect without {field}; leave it out")
