"""Which variants lose additions, and how many: an addition contest of threads on a few counters."""

import functools
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import torch

from thinwire.arrays import CPU
from thinwire.config import check_types
from thinwire.errors import ConfigError
from thinwire.kernels.shared_memory.contest import LARGEST_EXACT, add_ones
from thinwire.kernels.shared_memory.shared import Shared
from thinwire.kernels.shared_memory.variants import Variant
from thinwire.shared_memory.settings import MAX_THREADS
from thinwire.shared_memory.threads import run_together

Kind: TypeAlias = Literal["int64", "float64", "float32"]
_KINDS = {"int64": torch.int64, "float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Each thread adds 1 to the same counters in turn; every addition is one operation of the variant.

    All counters together lie in one or two lines of the cache. Every number up to the expected one is one that the type
    holds, so what is missing is counted exactly: float32 holds whole numbers up to 2^24 each, float64 up to 2^53.

    Args:
        variant: how it is added.
        threads: how many.
        additions: of all threads together.
        counters: how many counters take turns.
        kind: their type. With ``fetch-and-add`` an addition to int64 is one instruction of the processor, to a float it
            is a loop of compare-and-swap.
        pinned: each thread stays on a processor of its own (Linux).

    Raises:
        ConfigError: a value out of range, or more additions than the counters can count exactly.

    Example:
        >>> Contest(variant="racy", additions=100_000_000, counters=1, kind="float32")
        Traceback (most recent call last):
        ...
        thinwire.errors.ConfigError: 1 counter of float32 counts to 16,777,216 exactly; 100,000,000 additions need 6
    """

    variant: Variant
    threads: int = 2
    additions: int = 1_000_000
    counters: int = 8
    kind: Kind = "int64"
    pinned: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        if not 1 <= self.threads <= MAX_THREADS:
            raise ConfigError(f"{self.threads} threads were given; 1 to {MAX_THREADS} are allowed")
        if self.additions < self.threads or self.counters < 1:
            raise ConfigError(
                f"{self.additions} additions of {self.threads} threads to {self.counters} counters were given; each "
                "thread adds at least once, to at least one"
            )
        largest = LARGEST_EXACT[_KINDS[self.kind]]
        # Every thread begins at the first counter, which so has up to one more of each.
        share = -(-self.additions // self.threads)
        if self.threads * -(-share // self.counters) > largest:
            plural = "s" if self.counters > 1 else ""
            verb = "count" if self.counters > 1 else "counts"
            raise ConfigError(
                f"{self.counters} counter{plural} of {self.kind} {verb} to {largest:,} exactly; "
                f"{self.additions:,} additions need {-(-self.additions // largest)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestResult:
    """What came of a contest.

    Args:
        contest: what was asked.
        found: the sum of the counters.
        lost: how many of the additions are missing from it.
        seconds: from the moment when the last thread began.
        core_seconds: processor time of all threads.
    """

    contest: Contest
    found: int
    lost: int
    seconds: float
    core_seconds: float

    @property
    def cores(self) -> float:
        """How many cores the threads had at the same time, on average: fewer than threads do not contend."""
        return self.core_seconds / max(self.seconds, 1e-9)

    @property
    def additions_per_s(self) -> float:
        """Additions of all threads, a second."""
        return self.contest.additions / max(self.seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """A row for a file."""
        return {
            "row": "contest", **asdict(self.contest), "found": self.found, "lost": self.lost, "seconds": self.seconds,
            "cores": self.cores,
        }  # fmt: skip


def hold_contest(contest: Contest) -> ContestResult:
    """Hold it.

    Example:
        >>> hold_contest(Contest(variant="fetch-and-add", additions=1000)).lost
        0
    """
    shared = Shared.around(torch.zeros(contest.counters, dtype=_KINDS[contest.kind], device=CPU))
    add_ones(shared, contest.variant, 0)  # compiled before the others wait for it
    total, num = contest.additions, contest.threads
    shares = [total * (thread + 1) // num - total * thread // num for thread in range(num)]
    work = [functools.partial(add_ones, shared, contest.variant, share, num) for share in shares]
    outcome = run_together(shared, work, pinned=contest.pinned)
    found = int(shared.vector.sum(dtype=torch.int64 if contest.kind == "int64" else torch.float64))
    return ContestResult(
        contest=contest, found=found, lost=sum(outcome.results) - found, seconds=outcome.seconds,
        core_seconds=outcome.core_seconds,
    )  # fmt: skip
