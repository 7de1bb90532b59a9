"""When workers communicate."""

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.random import Key


@runtime_checkable
class Schedule(Protocol):
    """Decides after which local steps a worker takes part in an exchange; a pure function of step and rank."""

    @property
    def workers_agree(self) -> bool:
        """Whether all workers communicate after the same steps, as every exchange needs in which they wait."""
        ...

    def due(self, num_steps: int, rank: int) -> bool:
        """Whether worker ``rank`` communicates after its ``num_steps``-th step (counted from 1)."""
        ...


@register
@dataclass(frozen=True, slots=True)
class Every:
    """All workers, after every ``steps``-th local step: the H of local SGD.

    Raises:
        ConfigError: ``steps`` below 1.
    """

    steps: int = 1

    workers_agree: ClassVar[bool] = True
    """All at the same steps."""

    def __post_init__(self) -> None:
        check_types(self)
        _check_steps("every", self.steps)

    def due(self, num_steps: int, rank: int) -> bool:
        """True at multiples of ``steps``."""
        return num_steps % self.steps == 0


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class PostLocal:
    """After every step up to step ``switch``; from there on after every ``steps``-th (Lin et al. 2018).

    Args:
        switch: number of steps that are not local; the paper's is the first drop of the learning rate.
        steps: local steps afterwards.

    Raises:
        ConfigError: ``switch`` below 0 or ``steps`` below 1.

    Example:
        >>> [step for step in range(1, 12) if PostLocal(switch=3, steps=4).due(step, 0)]
        [1, 2, 3, 7, 11]
    """

    switch: int
    steps: int

    workers_agree: ClassVar[bool] = True
    """All at the same steps."""

    def __post_init__(self) -> None:
        check_types(self)
        _check_steps("every", self.steps)
        if self.switch < 0:
            raise ConfigError(f"switch = {self.switch} was given; local steps begin after 0, 1, 2, ... steps")

    def due(self, num_steps: int, rank: int) -> bool:
        """True up to ``switch``, then at every ``steps``-th step after it."""
        return num_steps <= self.switch or (num_steps - self.switch) % self.steps == 0


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class DoublingSteps:
    """Every step up to ``switch + period``; then gaps that double after every ``period`` steps, up to ``most``.

    0/1 Adam's T_u (Lu et al. 2022), where the learning rate, which falls, is halved about that often.

    Args:
        switch: steps before the first period.
        period: steps until gaps double; 32,678 in the published code.
        most: the longest gap; 16 there.

    Raises:
        ConfigError: ``switch`` below 0, or ``period`` or ``most`` below 1.

    Example:
        >>> schedule = DoublingSteps(switch=1, period=4, most=4)
        >>> [step for step in range(1, 24) if schedule.due(step, 0)]
        [1, 2, 3, 4, 5, 6, 8, 12, 16, 20]
    """

    switch: int = 0
    period: int = 32678
    most: int = 16

    workers_agree: ClassVar[bool] = True
    """All at the same steps."""

    def __post_init__(self) -> None:
        check_types(self)
        _check_steps("period", self.period)
        if self.switch < 0:
            raise ConfigError(f"switch = {self.switch} was given; periods begin after 0, 1, 2, ... steps")
        _check_steps("most", self.most)

    def due(self, num_steps: int, rank: int) -> bool:
        """True at multiples of the present gap, so that none is longer."""
        num_doubled = max(0, num_steps - self.switch - 1) // self.period
        gap = self.most if num_doubled >= self.most.bit_length() else min(self.most, 1 << num_doubled)
        return num_steps % gap == 0


@register
@dataclass(frozen=True, slots=True)
class DoublingGaps:
    """The first step; then gap j, counted from 0, has ``2^floor(j / count)`` steps.

    0/1 Adam's T_v (Lu et al. 2022, where ``count`` is kappa): t steps have about ``count log2(t / count)`` of them.

    Args:
        count: of gaps of one length.

    Raises:
        ConfigError: ``count`` below 1.

    Example:
        >>> [step for step in range(1, 30) if DoublingGaps(3).due(step, 0)]
        [1, 2, 3, 4, 6, 8, 10, 14, 18, 22]
    """

    count: int = 16

    workers_agree: ClassVar[bool] = True
    """All at the same steps."""

    def __post_init__(self) -> None:
        check_types(self)
        _check_steps("count", self.count)

    def due(self, num_steps: int, rank: int) -> bool:
        """True at the end of a gap."""
        passed = num_steps - 1
        level = (passed // self.count + 1).bit_length() - 1
        return (passed - self.count * ((1 << level) - 1)) % (1 << level) == 0


@register
@dataclass(frozen=True, slots=True)
class RandomGaps:
    """All workers, after gaps drawn uniformly from 1 to ``max_gap`` steps: any I_T with gap(I_T) <= H.

    The gaps are cut where ``64 max_gap`` steps end, which is one of the steps too: so the schedule is a function of
    the step, and a run can begin anywhere.

    Args:
        max_gap: H.
        seed: of the gaps.

    Raises:
        ConfigError: ``max_gap`` below 1.

    Example:
        >>> [step for step in range(1, 20) if RandomGaps(4).due(step, 0)]
        [2, 5, 7, 8, 10, 11, 15, 17]
    """

    max_gap: int
    seed: int = 0

    workers_agree: ClassVar[bool] = True
    """All at the same steps: the gaps do not depend on the worker."""

    def __post_init__(self) -> None:
        check_types(self)
        _check_steps("max_gap", self.max_gap)

    def due(self, num_steps: int, rank: int) -> bool:
        """True at the end of a gap."""
        return _ends_gap(num_steps, self.max_gap, self.seed, None)


@register
@dataclass(frozen=True, slots=True)
class Staggered:
    """Each worker at steps of its own, never more than ``steps`` apart (Basu et al. 2019, Alg. 2).

    Only an exchange in which no worker waits for the others can follow it.

    Args:
        steps: H.
        gaps: ``"fixed"``: every ``steps`` steps, worker r always r steps ahead of worker 0; ``"random"``: after gaps
            drawn uniformly from 1 to ``steps``, as :class:`RandomGaps`, for each worker its own.
        seed: of the gaps.

    Raises:
        ConfigError: ``steps`` below 1 or unknown ``gaps``.

    Example:
        >>> [[step for step in range(1, 9) if Staggered(4).due(step, rank)] for rank in (0, 1)]
        [[4, 8], [3, 7]]
    """

    steps: int
    gaps: Literal["fixed", "random"] = "fixed"
    seed: int = 0

    workers_agree: ClassVar[bool] = False
    """Each worker has its own."""

    def __post_init__(self) -> None:
        check_types(self)
        _check_steps("every", self.steps)

    def due(self, num_steps: int, rank: int) -> bool:
        """True at the end of one of the worker's gaps."""
        if self.gaps == "fixed":
            return (num_steps + rank) % self.steps == 0
        return _ends_gap(num_steps, self.steps, self.seed, rank)


def check_common(name: str, schedule: Schedule) -> None:
    """Raise :class:`ConfigError` if workers would be due at steps of their own.

    Example:
        >>> check_common("variance", Every(4))
    """
    if not schedule.workers_agree:
        raise ConfigError(f"{name}={schedule} was given, under which each worker has its own steps; give one for all")


def _check_steps(name: str, steps: int) -> None:
    if steps < 1:
        raise ConfigError(f"{name} = {steps} was given; workers communicate every 1, 2, 3, ... steps")


def _ends_gap(num_steps: int, max_gap: int, seed: int, rank: int | None) -> bool:
    block, offset = divmod(num_steps - 1, 64 * max_gap)
    return offset + 1 in _ends_in_block(block, max_gap, seed, rank)


@functools.lru_cache(maxsize=4096)
def _ends_in_block(block: int, max_gap: int, seed: int, rank: int | None) -> frozenset[int]:
    """Where gaps end among the steps 1 to ``64 max_gap`` of a block; at its end in any case."""
    length = 64 * max_gap
    key = Key(seed, ("gaps", block) if rank is None else ("gaps", block, rank))
    draws = np.random.Philox(key=key.bits64()).random_raw(length)
    ends = np.cumsum(draws % np.uint64(max_gap) + np.uint64(1))
    return frozenset([*ends[ends < length].tolist(), length])
