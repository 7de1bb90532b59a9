"""Sums of vectors: how many, and each as a body of its own."""

from collections.abc import Callable, Sequence

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.base import Payload
from thinwire.payloads.sum import Sum
from thinwire.wire.header import Parts, Reader, varint, varint_num_bytes

_MAX_PARTS = 64


def total_parts(payload: Sum, body: Callable[[Payload], Parts]) -> Parts:
    """What follows the kind byte; ``body`` writes that of each part."""
    _check(payload)
    return [varint(len(payload.parts)), *(piece for part in payload.parts for piece in body(part))]


def total_num_bytes(payload: Sum, body_num_bytes: Callable[[Payload], int]) -> int:
    """Length of :func:`total_parts`, without making them."""
    _check(payload)
    return varint_num_bytes(len(payload.parts)) + sum(map(body_num_bytes, payload.parts))


def read_total(reader: Reader, read_body: Callable[[Reader], Payload]) -> Sum:
    """Read what :func:`total_parts` wrote."""
    parts = tuple([read_body(reader) for _ in range(read_num_terms(reader))])
    check_lengths([part.numel for part in parts])
    return Sum(parts)


def read_num_terms(reader: Reader) -> int:
    """1 to 64: each takes time for the whole vector."""
    count = reader.varint()
    if not 1 <= count <= _MAX_PARTS:
        raise WireError(f"a sum of {count} vectors is declared; 1 to {_MAX_PARTS} are possible")
    return count


def check_lengths(lengths: Sequence[int]) -> None:
    """Refuse a sum of vectors of different lengths."""
    if min(lengths) != max(lengths):
        raise WireError(f"a sum of vectors of {min(lengths)} and of {max(lengths)} entries is declared")


def _check(payload: Sum) -> None:
    if not 1 <= len(payload.parts) <= _MAX_PARTS:
        raise ConfigError(f"a sum of {len(payload.parts)} payloads was given; 1 to {_MAX_PARTS} are possible")
    lengths = {part.numel for part in payload.parts}
    if len(lengths) > 1:
        raise ConfigError(f"a sum of payloads of {sorted(lengths)} entries was given; they must be of one length")
