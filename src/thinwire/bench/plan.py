"""What is measured, and the loop that measures it."""

from dataclasses import dataclass
from typing import Protocol

from thinwire.bench.families import BenchFamily, Member, Prepared
from thinwire.bench.inputs import BenchInput, check_input, make_input
from thinwire.bench.kernel_families import kernel_families
from thinwire.bench.operators import OPERATOR_STEPS, OPERATORS, operator_families
from thinwire.bench.rows import BenchRow
from thinwire.bench.steps import schemes
from thinwire.bench.sync import sync_family
from thinwire.bench.timing import SWEEP_BELOW, Stopwatch, Times
from thinwire.config import suggest
from thinwire.errors import ConfigError

_MAX_THREADS = 1024


def families() -> tuple[BenchFamily, ...]:
    """Everything that can be timed."""
    return (*(scheme.family() for scheme in schemes()), sync_family(), *operator_families(), *kernel_families())


def step_names() -> tuple[str, ...]:
    """The names that ``--steps`` takes: every step, and ``operators`` for the two of the registered compressors."""
    return (OPERATORS, *dict.fromkeys(member.step for family in families() for member in family.members))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Args:
        numels: lengths of the vectors.
        threads: numbers of threads.
        inputs: ``heavy`` or ``recorded:FILE``.
        steps: names of the steps, or ``operators``. All by default, but the registered compressors only on vectors
            below 4 M entries: they would take longer than everything else together.
        repeats: calls of each; 30 below 4 M entries, 11 below 100 M, else 5.
        warmups: calls before those, which are not counted.
        sweep_num_bytes: of the buffer that is written over before each call on a vector below 4 M entries. It must
            be larger than the processor's cache for times to mean anything.

    Raises:
        ConfigError: a value out of range, an unknown step, or an input that cannot be read.
    """

    numels: tuple[int, ...]
    threads: tuple[int, ...] = (1, 2)
    inputs: tuple[str, ...] = ("heavy",)
    steps: tuple[str, ...] = ()
    repeats: int | None = None
    warmups: int = 3
    sweep_num_bytes: int = 1 << 27

    def __post_init__(self) -> None:
        for name in ("numels", "threads", "inputs"):
            if not getattr(self, name):
                raise ConfigError(f"no {name} were given; at least one is needed")
        for threads in self.threads:
            if not 1 <= threads <= _MAX_THREADS:
                raise ConfigError(f"{threads} threads were asked for; a bench takes 1 to {_MAX_THREADS}")
        if self.repeats is not None and self.repeats < 1:
            raise ConfigError(f"repeats = {self.repeats} was given; it must be at least 1")
        known = step_names()
        for step in self.steps:
            if step not in known:
                raise ConfigError(f"unknown step {step!r}{suggest(step, list(known))}")
        for name in self.inputs:
            check_input(name)

    @property
    def num_rows(self) -> int:
        """How many rows it gives."""
        known = families()
        each = sum(len(self.wanted(family, numel)) for numel in self.numels for family in known)
        return each * len(self.threads) * len(self.inputs)

    def wanted(self, family: BenchFamily, numel: int) -> tuple[Member, ...]:
        """The members of a family that are measured at that length."""
        return tuple(member for member in family.members if self._wants(member.step, numel))

    def _wants(self, step: str, numel: int) -> bool:
        is_operator = step in OPERATOR_STEPS
        if not self.steps:
            return not is_operator or numel < SWEEP_BELOW
        return step in self.steps or (is_operator and OPERATORS in self.steps)

    def repeats_of(self, numel: int) -> int:
        """Calls of each step on vectors of that length."""
        return self.repeats or (30 if numel < 4_000_000 else 11 if numel < 100_000_000 else 5)


class Listener(Protocol):
    """Is told what goes on; when the measurement is interrupted, what it was told stands."""

    def announce(self, what: str) -> None:
        """What is done next, in words."""
        ...

    def note(self, data: BenchInput) -> None:
        """An input is ready; it must not be kept, it is large."""
        ...

    def row(self, row: BenchRow) -> None:
        """A row is measured."""
        ...


def measure(plan: Plan, listener: Listener) -> None:
    """Measure everything that is planned."""
    for numel in plan.numels:
        for name in plan.inputs:
            listener.announce(f"{name}: making vectors of {numel:,} entries")
            data = make_input(name, numel)
            listener.note(data)
            stopwatch = Stopwatch(data.numel, plan.repeats_of(data.numel), plan.warmups, plan.sweep_num_bytes)
            for family in families():
                _measure_family(plan, family, data, stopwatch, listener)


def _measure_family(
    plan: Plan, family: BenchFamily, data: BenchInput, stopwatch: Stopwatch, listener: Listener
) -> None:
    wanted = plan.wanted(family, data.numel)
    if not wanted:
        return
    listener.announce(f"{data.numel:,} entries: {wanted[0].name}")
    maker = family.open(data)
    for member in wanted:
        listener.announce(f"{data.numel:,} entries: {member.name}")
        prepared = maker(member)
        for threads, times in zip(plan.threads, stopwatch.time(prepared.case, plan.threads), strict=True):
            listener.row(_row(member, prepared, data, threads, times))
        del prepared  # before the next one takes its memory


def _row(member: Member, prepared: Prepared, data: BenchInput, threads: int, times: Times) -> BenchRow:
    facts = prepared.facts()
    return BenchRow(
        step=member.step,
        variant=member.variant,
        numel=data.numel,
        threads=threads,
        density=member.density,
        input=data.name,
        seconds=times.seconds,
        memcpy_seconds=times.memcpy_seconds,
        ratio=times.seconds / times.memcpy_seconds,
        bits_per_entry=facts.bits_per_entry,
        entropy_bits=facts.entropy_bits,
        bits_per_index=facts.bits_per_index,
        index_bound_bits=facts.index_bound_bits,
        extra_bytes=times.extra_bytes,
    )
