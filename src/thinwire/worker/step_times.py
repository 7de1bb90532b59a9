"""Where the seconds of a step go."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from torch import Tensor

from thinwire.compressors import Compressor
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.memory import Handed, Sender
from thinwire.payloads import Payload
from thinwire.random import Key

Phase: TypeAlias = Literal["compute", "compress", "encode", "waiting", "wire", "decode", "apply"]
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Seconds of one step on one process: every moment is counted once, so they add up to the step.

    Args:
        compute_s: outside of the exchange: forward, backward, input data, the optimizer's own step. Where exchanges
            overlap with backward it is what they do not hide.
        compress_s: in the compressor and its memory.
        encode_s: from there to the moment at which the message is handed over: above all, writing its bytes.
        waiting_s: until something of every message is here, so that every peer has come to this point. Of a message
            that comes in one piece (up to 128 kB, or 1 MB within a machine) that is all of it.
        wire_s: moving bytes after that. Whoever waits in an all-reduce does so here.
        decode_s: reading messages and adding them up.
        apply_s: the rest of an exchange: gathering tensors to one vector, writing the mean back.

    Example:
        >>> print(StepTimes(compute_s=0.011, compress_s=0.0004, wire_s=0.002))
        step 13.40 ms: compute 11.00, compress 0.40, encode 0.00, waiting 0.00, wire 2.00, decode 0.00, apply 0.00
    """

    compute_s: float = 0.0
    compress_s: float = 0.0
    encode_s: float = 0.0
    waiting_s: float = 0.0
    wire_s: float = 0.0
    decode_s: float = 0.0
    apply_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Seconds of all of it."""
        return sum(self.seconds(phase) for phase in PHASES)

    def seconds(self, phase: Phase) -> float:
        """Seconds of one phase."""
        found: float = getattr(self, f"{phase}_s")
        return found

    @staticmethod
    def of(seconds: Mapping[Phase, float]) -> "StepTimes":
        """The times of a step by its phases."""
        return StepTimes(**{f"{phase}_s": seconds[phase] for phase in PHASES})

    def __str__(self) -> str:
        parts = ", ".join(f"{phase} {1e3 * self.seconds(phase):.2f}" for phase in PHASES)
        return f"step {1e3 * self.total_s:.2f} ms: {parts}"


@dataclass(slots=True)
class StepClock:
    """Divides the time of one process among the phases of a step; one of them is on at any moment.

    It may be switched from several threads that wait for each other, not from two at once.

    Args:
        now: seconds, never going back.
        kept: of so many last steps the times are kept.

    Raises:
        ConfigError: less than one step to keep.

    Example:
        >>> readings = iter([0.0, 1.0, 3.0, 3.5])
        >>> clock = StepClock(now=lambda: next(readings))
        >>> clock.switch("wire")
        'compute'
        >>> clock.switch("compute")
        'wire'
        >>> clock.end_step()
        >>> clock.steps()[-1]
        StepTimes(compute_s=1.5, compress_s=0.0, encode_s=0.0, waiting_s=0.0, wire_s=2.0, decode_s=0.0, apply_s=0.0)
    """

    now: Callable[[], float] = time.perf_counter
    kept: int = 200
    _steps: deque[dict[Phase, float]] = field(init=False)
    _seconds: dict[Phase, float] = field(init=False)
    _phase: Phase = field(init=False, default="compute")
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        if self.kept < 1:
            raise ConfigError(f"the times of {self.kept} steps were to be kept; keep at least 1")
        self._steps = deque(maxlen=self.kept)
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._since = self.now()

    def switch(self, phase: Phase) -> Phase:
        """From now on it is ``phase``; which one it was."""
        now = self.now()
        before = self._phase
        self._seconds[before] += now - self._since
        self._since, self._phase = now, phase
        return before

    def end_step(self) -> None:
        """A step ends here."""
        self.switch(self._phase)
        self._steps.append(self._seconds)
        self._seconds = dict.fromkeys(PHASES, 0.0)

    def steps(self) -> list[StepTimes]:
        """The times of the last steps, oldest first."""
        return [StepTimes.of(seconds) for seconds in self._steps.copy()]

    def median(self) -> StepTimes:
        """Of each phase the median over the kept steps, so that one slow step does not count; 0 before the first."""
        steps = self._steps.copy()  # a hook's thread may go on
        if not steps:
            return StepTimes()
        return StepTimes.of({phase: statistics.median(step[phase] for step in steps) for phase in PHASES})


@contextmanager
def during(clock: StepClock | None, phase: Phase) -> Iterator[None]:
    """What is done within counts as ``phase``, what follows as what was before, if there is a clock."""
    before = None if clock is None else clock.switch(phase)
    try:
        yield
    finally:
        if clock is not None and before is not None:
            clock.switch(before)


def median_times(clock: StepClock | None) -> StepTimes:
    """The median of a clock that is there only if it was asked for.

    Raises:
        ConfigError: it was not.
    """
    if clock is None:
        raise ConfigError("the times of a step are measured only if asked for; give profile=True")
    return clock.median()


@dataclass(slots=True)
class TimedSender:
    """Compresses like ``inner``; the time that it takes counts as compression, what follows as encoding.

    Args:
        inner: what makes the message.
        clock: what is switched.
    """

    inner: Sender
    clock: StepClock

    @property
    def compressor(self) -> Compressor:
        """As ``inner``. Who compresses with it does so in the phase that :meth:`add_residual` began."""
        return self.inner.compressor

    def compress(self, x: Handed, key: Key, segments: Segments) -> Payload:
        """As ``inner``."""
        self.clock.switch("compress")
        payload = self.inner.compress(x, key, segments)
        self.clock.switch("encode")
        return payload

    def add_residual(self, x: Handed) -> Tensor:
        """As ``inner``."""
        self.clock.switch("compress")
        return self.inner.add_residual(x)

    def commit(self, sent: Payload) -> None:
        """As ``inner``."""
        with during(self.clock, "compress"):
            self.inner.commit(sent)
