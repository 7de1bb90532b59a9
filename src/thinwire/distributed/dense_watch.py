"""Notices, while a model trains, that its gradients would be exchanged faster without compression."""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from thinwire.arrays import CPU, has_streams
from thinwire.distributed.link_speed import dense_exchange_s
from thinwire.network import Network
from thinwire.staging import catch_up

IGNORED_STEPS, WATCHED_STEPS = 2, 10
"""Kernels are compiled in the first step, and DDP makes new buckets after it; then so many are watched."""
LEAST_SAVING = 0.05
"""The share of a step below which a difference is not worth a word, nor told from noise."""


class SlowerThanDense(UserWarning):
    """Compression makes steps longer here; the message holds the figures."""


@dataclass(frozen=True, slots=True)
class _Bucket:
    """One exchange, in seconds of this process's clock."""

    handed_s: float
    begun_s: float
    ended_s: float
    num_bytes: int

    @property
    def busy_s(self) -> float:
        return self.ended_s - self.begun_s


@dataclass(slots=True, eq=False)
class DenseWatch:
    """Compares the exchanges of a few steps with what the fastest dense ones are predicted to take, and warns once.

    These are DDP's in 16 bits, as its ``bf16_compress_hook`` sends them; what rounding takes is not counted.

    Both ways exchange a step's buckets one after another, none before backward has handed it over, and what counts is
    when the last is done: of the seconds that exchanges take, those that pass during backward cost nothing. So the
    end of a step's exchanges is found twice from the moments at which its buckets were handed over, once with the
    seconds that the exchanges took (compress, encode, send, wait, decode) and once with :func:`dense_exchange_s` of
    the same buckets. The difference of both ends is what a dense step would save. It warns if the median saving is more
    than 5 % of the dense step.

    What a bucket took is the least of all processes: a process that comes early waits, as it would for a dense
    exchange, and the last one does not. What compression costs backward by using the same cores is not counted.
    The processes share their seconds once, after the last watched step, and the first of them warns.

    Args:
        network: the link.
        size: number of processes.
        is_first: whether this process is the one that warns.
        share: gives every process's numbers, in rank order.
        clock: seconds.
        device: where the model lies. An accelerator is waited for before the clock is read, in the steps that are
            watched: else the seconds of backward would count as the exchange's.
    """

    network: Network
    size: int
    is_first: bool
    share: Callable[[Sequence[float]], list[list[float]]]
    clock: Callable[[], float] = time.perf_counter
    device: torch.device = CPU
    _num_steps: int = field(init=False, default=0)
    _previous_end_s: float = field(init=False, default=0.0)
    _buckets: list[_Bucket] = field(init=False, default_factory=list)
    _steps: list[list[_Bucket]] = field(init=False, default_factory=list)
    _durations: list[float] = field(init=False, default_factory=list)
    _message: str | None = field(init=False, default=None)

    def hand_over(self) -> float:
        """The time at which a bucket is handed over; warns, in the caller's thread, if there is something to say."""
        message, self._message = self._message, None
        if message is not None:
            # DDP calls from backward, so no line of the stack is the script's.
            warnings.warn_explicit(message, SlowerThanDense, "thinwire.compress_ddp", 1)
        return self.clock()

    def begin(self) -> float:
        """The time at which its exchange begins."""
        return self._time()

    def end(self, handed_s: float, begun_s: float, num_bytes: int, *, is_last: bool, counts: bool) -> None:
        """Its exchange is over.

        Args:
            handed_s: from :meth:`hand_over`.
            begun_s: from :meth:`begin`.
            num_bytes: of the bucket in 16 bits.
            is_last: whether it is the step's last bucket.
            counts: whether it is exchanged as all later ones will be, and not as during a warm-up.
        """
        if self._is_over():
            return
        if has_streams(self.device):
            handed_s = begun_s  # the host hands over what the device has yet to fill
        if self._buckets:  # it may have begun while the one before it was still on the wire
            begun_s = max(begun_s, self._buckets[-1].ended_s)
        self._buckets.append(_Bucket(handed_s, begun_s, self._time(), num_bytes))
        if not is_last:
            return
        buckets, self._buckets = self._buckets, []
        if counts:
            self._num_steps += 1
            if self._num_steps > IGNORED_STEPS:
                self._steps.append(buckets)
                self._durations.append(buckets[-1].ended_s - self._previous_end_s)
        self._previous_end_s = buckets[-1].ended_s
        if self._is_over():
            self._compare()

    def _is_over(self) -> bool:
        return len(self._steps) == WATCHED_STEPS

    def _time(self) -> float:
        if not self._is_over():
            catch_up(self.device)
        return self.clock()

    def _compare(self) -> None:
        everyones = self.share([bucket.busy_s for step in self._steps for bucket in step])
        least = (min(each) for each in zip(*everyones, strict=True))
        costs = [[next(least) for _ in step] for step in self._steps]
        dense = [
            [dense_exchange_s(self.network, bucket.num_bytes, self.size) for bucket in step] for step in self._steps
        ]
        ends, dense_ends = (
            [end_s([bucket.handed_s for bucket in step], cost) for step, cost in zip(self._steps, each, strict=True)]
            for each in (costs, dense)
        )
        saved = statistics.median(ours - theirs for ours, theirs in zip(ends, dense_ends, strict=True))
        duration = statistics.median(self._durations)
        if not self.is_first or saved <= LEAST_SAVING * (duration - saved):
            return
        exposed = statistics.median(end - step[-1].handed_s for end, step in zip(ends, self._steps, strict=True))
        self._message = (
            f"gradients would be exchanged faster without compression: exchanges took {_ms(_total(costs))} a step "
            f"({_ms(exposed)} of it after backward), and dense ones in 16 bits, "
            f"{sum(bucket.num_bytes for bucket in self._steps[-1]) / 1e6:.3g} MB, are predicted to take "
            f"{_ms(_total(dense))} on this link ({8e-6 * self.network.bandwidth_Bps:.3g} Mbit/s, "
            f"{_ms(self.network.latency_s)}); steps of {_ms(duration)} would take {_ms(duration - saved)}. Train with "
            "DDP and its bf16_compress_hook (on CPUs inside a function of yours: DDP refuses it there by its name), or "
            "compare methods on this link with: torchrun ... -m thinwire probe. "
            "warn_if_slower=False leaves this out"
        )


def end_s(handed_s: Sequence[float], costs_s: Sequence[float]) -> float:
    """When the last exchange ends, if they are done one after another and each begins once its bucket is there.

    Example:
        >>> end_s([0.0, 1.0, 5.0], [2.0, 2.0, 1.0])  # the first two are done by 4
        6.0
    """
    end = float("-inf")
    for handed, cost in zip(handed_s, costs_s, strict=True):
        end = max(end, handed) + cost
    return end


def _total(costs: Sequence[Sequence[float]]) -> float:
    return statistics.median(sum(step) for step in costs)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
