"""One measured line."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """What was measured of one step at one length with one number of threads.

    Args:
        step: its name; those of whole steps do not change between versions.
        variant: what else tells it from rows of the same name, or empty.
        numel: entries of the vector.
        threads: of torch and of the kernels; memcpy always has one.
        density: kept share of the entries, for what is sparse.
        input: ``heavy`` or ``recorded:FILE``.
        seconds: median of a call.
        memcpy_seconds: median of copying the vector once, measured between the calls.
        ratio: the first over the second.
        bits_per_entry: length of the message, for what makes or reads one.
        entropy_bits: of what is coded, per entry; see :func:`thinwire.bench.entropy.entropy_bits`.
        bits_per_index: what the positions of a sparse message take, of each kept entry.
        index_bound_bits: ``log2 C(d, k) / k``, the least for positions that are independent of each other.
        extra_bytes: peak of memory during a call above what is kept; none where the system does not tell.
    """

    step: str
    variant: str
    numel: int
    threads: int
    density: float | None
    input: str
    seconds: float
    memcpy_seconds: float
    ratio: float
    bits_per_entry: float | None = None
    entropy_bits: float | None = None
    bits_per_index: float | None = None
    index_bound_bits: float | None = None
    extra_bytes: int | None = None

    def to_json(self) -> dict[str, str | int | float | None]:
        """Plain values under the names of the fields."""
        return dataclasses.asdict(self)
