"""Locks or atomics for sparse asynchronous updates: the tables of docs/shared-memory.md, in one run.

The contest: additions of two threads to eight counters, until 10^8 of them were contended, and how many are lost. The
order of the six variants at three densities; then sparsified updates of dense examples, and a support vector machine.

Two threads contend only while both have a core. So what is timed are bursts of milliseconds with a rest before each,
threads are pinned, the variants take turns, and a burst counts as contended if the threads had ``--least-cores`` at the
same time. On a machine that does nothing else nearly all count. A table ends when each variant has enough, or after
``--limit`` seconds; how many counted is printed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TextIO, get_args

from thinwire.shared_memory import (
    VARIANTS,
    Contest,
    ContestResult,
    Examples,
    Result,
    Settings,
    Variant,
    hold_contest,
    load_examples,
    train,
)
from thinwire.shared_memory.contest import Kind

NUMEL, NUM_EXAMPLES, NUM_OF_BURSTS = 2000, 1000, 200
BURST_ADDITIONS = 100_000
REST_S = 0.01


@dataclass(frozen=True)
class Wanted:
    """How much of each variant, and what counts."""

    additions: int
    bursts: int
    writes: int
    least_cores: float
    limit_s: float
    kinds: tuple[Kind, ...]
    out: TextIO | None

    def keep(self, result: ContestResult | Result, threads: int) -> bool:
        """Whether the threads contended; what is kept in the file."""
        counts = result.cores >= self.least_cores * threads / 2
        if self.out is not None:
            print(json.dumps({**result.to_json(), "counts": counts}), file=self.out, flush=True)
        return counts


def hold_contests(wanted: Wanted, kind: Kind) -> None:
    """The table of lost additions."""
    print(f"\ncontest of two threads, 8 counters of {kind}, until {wanted.additions:,} additions were contended\n")
    print("| variant | ns an addition | contended additions | lost | all additions | lost |", flush=True)
    print("|---|---|---|---|---|---|")
    for variant in VARIANTS:
        contest = Contest(variant=variant, threads=2, additions=BURST_ADDITIONS, kind=kind, pinned=True)
        contended: list[ContestResult] = []
        num = lost = 0
        end_s = time.monotonic() + wanted.limit_s
        while len(contended) * BURST_ADDITIONS < wanted.additions and time.monotonic() < end_s:
            time.sleep(REST_S)
            result = hold_contest(contest)
            num, lost = num + contest.additions, lost + result.lost
            if wanted.keep(result, 2):
                contended.append(result)
        cost = f"{statistics.median(1e9 / each.additions_per_s for each in contended):.1f}" if contended else "-"
        own = sum(each.lost for each in contended)
        print(
            f"| {variant} | {cost} | {len(contended) * BURST_ADDITIONS:,} | {own:,} | {num:,} | {lost:,} |", flush=True
        )


def time_bursts(wanted: Wanted, examples: Examples, settings: Settings) -> dict[Variant, list[Result]]:
    """Bursts of each variant in turn; those that were contended."""
    found: dict[Variant, list[Result]] = {variant: [] for variant in VARIANTS}
    end_s = time.monotonic() + wanted.limit_s
    while any(len(each) < wanted.bursts for each in found.values()) and time.monotonic() < end_s:
        for variant in VARIANTS:
            if len(found[variant]) < wanted.bursts:
                time.sleep(REST_S)
                result = train(examples, replace(settings, variant=variant))
                if wanted.keep(result, settings.threads):
                    found[variant].append(result)
    return found


@dataclass(frozen=True)
class Data:
    """Which examples: few for bursts, so that little time passes between them, more for the loss."""

    task: str
    numel: int
    density: float | None

    def load(self, num: int) -> Examples:
        """So many of them."""
        return load_examples(self.task, numel=self.numel, examples=num, density=self.density)


def show(wanted: Wanted, what: str, data: Data, settings: Settings) -> None:
    """A table: the variants, fastest first."""
    burst = max(4, round(wanted.writes / ((data.density or 1) * data.numel)))
    short = replace(settings, updates=burst, rounds=1, pinned=True)
    found = time_bursts(wanted, data.load(NUM_OF_BURSTS), short)
    examples = data.load(NUM_EXAMPLES)
    ends = {variant: train(examples, replace(settings, variant=variant)) for variant in VARIANTS}
    print(f"\n{what}, {settings.threads} threads, bursts of {burst:,} updates; loss after {settings.updates:,}\n")
    print("| variant | updates/s | middle half | writes/s | bursts | lost of a million writes | loss |")
    print("|---|---|---|---|---|---|---|")
    for variant in sorted(VARIANTS, key=lambda each: -middle(found[each], lambda result: result.updates_per_s)):
        results = found[variant]
        rates = sorted(each.updates_per_s for each in results) or [float("nan")]
        low, high = rates[len(rates) // 4], rates[-1 - len(rates) // 4]
        lost = 1e6 * sum(each.lost for each in results) / max(1, sum(each.counted for each in results))
        writes = middle(results, lambda result: result.writes_per_s)
        print(
            f"| {variant} | {middle(results, lambda result: result.updates_per_s):,.0f} | {low:,.0f}-{high:,.0f} "
            f"| {writes:.3g} | {len(results)} | {lost:.0f} | {ends[variant].loss:.4f} |",
            flush=True,
        )


def middle(results: list[Result], of: Callable[[Result], float]) -> float:
    """The median; 0 of nothing."""
    return statistics.median(map(of, results)) if results else 0.0


def measure_order(wanted: Wanted, threads: int = 2) -> None:
    """The six variants at three densities."""
    for density in (1.0, 0.1, 0.01):
        settings = Settings(threads=threads, updates=20_000)
        show(wanted, f"sgd, density {density:g}", Data("sparse", NUMEL, density), settings)


def measure_contests(wanted: Wanted) -> None:
    """Lost additions, to whole numbers and to floats."""
    for kind in wanted.kinds:
        hold_contests(wanted, kind)


def measure_wide(wanted: Wanted) -> None:
    """A long vector, of which two examples rarely touch the same coordinates."""
    for threads in (1, 2):
        show(
            wanted,
            "sgd, 200,000 coordinates, density 0.0005",
            Data("sparse", 200_000, 0.0005),
            Settings(threads=threads),
        )


def measure_sparsified(wanted: Wanted) -> None:
    """Sparse updates of dense examples."""
    for keep in (0.1, 0.01):
        # What is divided by its probability wants a lower rate.
        for settings in (
            Settings(method="mem-sgd", keep=keep),
            Settings(method="gspar", keep=keep, learning_rate=keep),
        ):
            show(wanted, f"{settings.method}, dense examples, keep {keep:g}", Data("sparse", NUMEL, 1.0), settings)


def measure_machines(wanted: Wanted) -> None:
    """Support vector machines, as of the GSpar paper."""
    for method in ("sgd", "gspar"):
        svm = Settings(method=method, loss="hinge", keep=0.05, learning_rate=0.1)
        show(wanted, f"support vector machine, {method}, task gspar, keep 0.05", Data("gspar", 256, None), svm)


PARTS: dict[str, Callable[[Wanted], None]] = {
    "order": measure_order,
    "contests": measure_contests,
    "alone": lambda wanted: measure_order(wanted, threads=1),
    "wide": measure_wide,
    "sparsified": measure_sparsified,
    "machines": measure_machines,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--additions", type=int, default=100_000_000)
    parser.add_argument("--bursts", type=int, default=25)
    parser.add_argument("--writes", type=int, default=400_000, help="coordinates that a burst writes")
    parser.add_argument("--least-cores", type=float, default=1.8)
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--kinds", nargs="+", choices=get_args(Kind), default=("int64", "float32"))
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, separated by commas")
    parser.add_argument("--json", type=argparse.FileType("w"))
    given = parser.parse_args()
    wanted = Wanted(
        given.additions, given.bursts, given.writes, given.least_cores, given.limit, tuple(given.kinds), given.json
    )
    for part in given.parts.split(","):
        PARTS[part](wanted)


if __name__ == "__main__":
    main()
