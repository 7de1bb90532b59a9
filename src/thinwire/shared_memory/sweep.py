"""Runs of several variants, thread counts and densities, in turn."""

import statistics
from dataclasses import dataclass, field, replace
from typing import Protocol

from thinwire.config import check_types
from thinwire.errors import ConfigError
from thinwire.kernels.shared_memory.variants import VARIANTS, Variant, number_of
from thinwire.shared_memory.contest import Contest, ContestResult, hold_contest
from thinwire.shared_memory.settings import Settings
from thinwire.shared_memory.tasks import check_asked, load_examples
from thinwire.shared_memory.training import Result, train


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Args:
        variants: which.
        threads: numbers of threads.
        densities: of the task ``sparse``; one run with the task's own density if none.
        task: see :func:`thinwire.shared_memory.tasks.load_examples`.
        numel: coordinates; the task's own number if none.
        examples: how many; the task's own number if none.
        settings: all else of a run.
        repeat: runs of each, in turn with the others, so that what else the machine does meets all alike.
        additions: of the contest, for each variant and number of threads; 0 for no contest.

    Raises:
        ConfigError: nothing to measure, an unknown variant, or a number out of range.

    Example:
        >>> Plan(threads=(1, 2), densities=(1.0, 0.1), repeat=3).num_runs
        84
    """

    variants: tuple[Variant, ...] = VARIANTS
    threads: tuple[int, ...] = (2,)
    densities: tuple[float, ...] = ()
    task: str = "sparse"
    numel: int | None = None
    examples: int | None = None
    settings: Settings = field(default_factory=Settings)
    repeat: int = 3
    additions: int = 1_000_000

    def __post_init__(self) -> None:
        for variant in self.variants:
            number_of(variant)
        check_types(self)
        for name in ("variants", "threads"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise ConfigError(f"{name} {', '.join(map(str, given))} were given; name at least one, each once")
        if len(set(self.densities)) < len(self.densities):
            raise ConfigError("a density was given twice; name each once")
        for density in self.densities or (None,):
            check_asked(self.task, numel=self.numel, examples=self.examples, density=density)
        if self.repeat < 1:
            raise ConfigError(f"{self.repeat} runs of each were asked for; 1 is the least")
        if self.additions < 0:
            raise ConfigError(f"{self.additions} additions were asked for; 0 is the least, for no contest")
        for count in self.threads:
            replace(self.settings, threads=count)
            if self.additions:
                Contest(variant=self.variants[0], threads=count, additions=self.additions)

    @property
    def num_runs(self) -> int:
        """Runs and contests."""
        each = len(self.threads) * len(self.variants)
        return each * (max(1, len(self.densities)) * self.repeat + (self.additions > 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The runs of one variant, number of threads and density.

    Args:
        results: at least one, alike but for what the threads made of it.
    """

    results: tuple[Result, ...]

    @property
    def updates_per_s(self) -> float:
        """Their median."""
        return statistics.median(result.updates_per_s for result in self.results)

    @property
    def extent(self) -> tuple[float, float]:
        """The slowest and the fastest, in updates a second."""
        found = [result.updates_per_s for result in self.results]
        return min(found), max(found)

    @property
    def writes_per_s(self) -> float:
        """Their median."""
        return statistics.median(result.writes_per_s for result in self.results)

    @property
    def cores(self) -> float:
        """The median of the cores that the threads had."""
        return statistics.median(result.cores for result in self.results)

    @property
    def loss(self) -> float:
        """The median of the losses at the end."""
        return statistics.median(result.loss for result in self.results)

    @property
    def lost_share(self) -> float:
        """Of all coordinates that were counted, how many were lost."""
        return sum(result.lost for result in self.results) / max(1, sum(result.counted for result in self.results))


class Listener(Protocol):
    """Who hears what is done."""

    def begins(self, what: str) -> None:
        """A run begins."""

    def trained(self, result: Result) -> None:
        """A run has ended."""

    def contested(self, result: ContestResult) -> None:
        """A contest has ended."""


def measure(plan: Plan, listener: Listener) -> list[Row]:
    """Train and hold contests as planned; the rows of the training, by density, threads and variant."""
    rows = []
    for threads in plan.threads if plan.additions else ():
        for variant in plan.variants:
            listener.begins(f"contest, {threads} threads, {variant}")
            listener.contested(
                hold_contest(
                    Contest(variant=variant, threads=threads, additions=plan.additions, pinned=plan.settings.pinned)
                )
            )
    for density in plan.densities or (None,):
        examples = load_examples(
            plan.task, numel=plan.numel, examples=plan.examples, density=density, seed=plan.settings.seed
        )
        for threads in plan.threads:
            found: dict[Variant, list[Result]] = {variant: [] for variant in plan.variants}
            for variant in _in_turn(plan):
                listener.begins(f"{plan.task}, density {examples.density:.3g}, {threads} threads, {variant}")
                result = train(examples, replace(plan.settings, variant=variant, threads=threads))
                listener.trained(result)
                found[variant].append(result)
            rows += [Row(results=tuple(results)) for results in found.values()]
    return rows


def _in_turn(plan: Plan) -> list[Variant]:
    """All variants, then all again from the next one on."""
    starts = [number % len(plan.variants) for number in range(plan.repeat)]
    return [variant for start in starts for variant in plan.variants[start:] + plan.variants[:start]]
