"""What exchanges cost between these processes, on given vectors and without a training script."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from thinwire.distributed.link_speed import dense_exchange_s
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import GradientAveraging, Method, apart, exchanges_per_step
from thinwire.network import Network, all_reduce_traffic
from thinwire.staging import finish
from thinwire.worker import needs_server
from thinwire.worker.subject import Subject

BUCKET_NUMEL = 25 * (1 << 20) // 4
"""DDP's buckets hold 25 MiB."""
ROUNDS = 5
_FEWEST = 10_000


@dataclass(frozen=True, slots=True)
class Cost:
    """What is spent on communication, for one exchange or for each training step.

    Args:
        seconds: on the slowest process.
        bytes_sent: on the busiest link.
        bytes_received: on the busiest link.
        rounds: how many exchanges of the full length were timed; 0 if ``seconds`` is predicted.
        measured_numel: length of the longest vector that was exchanged; 0 if none was.
    """

    seconds: float
    bytes_sent: float
    bytes_received: float
    rounds: int
    measured_numel: int

    @property
    def is_predicted(self) -> bool:
        """Whether a vector of the full length was never exchanged, as that would have taken too long."""
        return self.rounds == 0

    def times(self, share: float) -> "Cost":
        """The cost of each step, if only a share of the steps has an exchange."""
        return replace(
            self, seconds=share * self.seconds, bytes_sent=share * self.bytes_sent,
            bytes_received=share * self.bytes_received,
        )  # fmt: skip

    def plus(self, other: "Cost") -> "Cost":
        """Of both; predicted if one of them is."""
        return Cost(
            self.seconds + other.seconds, self.bytes_sent + other.bytes_sent,
            self.bytes_received + other.bytes_received, min(self.rounds, other.rounds),
            min(self.measured_numel, other.measured_numel),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Prober:
    """Measures exchanges; every process calls the same and gets the same.

    Args:
        transport: of the processes.
        network: its link, see :func:`thinwire.distributed.link_speed.measure_link`.
        vectors: gradients of this process, used in turn, on the device where exchanges are computed.
        sizes: of the tensors that make up a vector.
        limit_s: about as long the measurement of a method may take. What would take longer is predicted: DDP's own
            exchange from the link, others by a line through what the first entries of the vectors took.
        group: what the transport was made of.
    """

    transport: Transport
    network: Network
    vectors: Sequence[Tensor]
    sizes: Sequence[int]
    limit_s: float = 10.0
    group: dist.ProcessGroup | None = None

    def dense(self, dtype: torch.dtype = torch.float32) -> Cost:
        """A step of DDP without a hook: torch's all-reduce, one bucket after another.

        With another ``dtype``, as its ``bf16_compress_hook`` does it: rounded and divided, added up, widened.
        """
        size = self.transport.size
        vector = self.vectors[0].clone()
        buckets = torch.split(vector, BUCKET_NUMEL)
        predicted_s = sum(dense_exchange_s(self.network, bucket.numel() * dtype.itemsize, size) for bucket in buckets)
        most = max(each.bytes_sent for each in all_reduce_traffic(vector.numel(), size, dtype.itemsize))
        if 2 * predicted_s > self.limit_s:
            return Cost(predicted_s, most, most, 0, 0)

        def exchange() -> None:
            for bucket in buckets:
                sent = bucket.to(dtype)
                sent /= size
                dist.all_reduce(sent, group=self.group)
                bucket.copy_(sent)

        times = self._times(lambda: None, exchange, ROUNDS, self.limit_s)
        return Cost(statistics.median(times), most, most, len(times), vector.numel())

    def step(self, method: Method) -> Cost:
        """A step of a worker with this method, in the long run: its exchanges, spread over its local steps.

        Exchanges that sum a whole vector, beside the others or in their place, are measured apart. Forward, backward,
        the optimizer and warm-up exchanges are left out.

        Raises:
            ConfigError: a method with a server process, local steps without end, or one that does not fit.
        """
        if needs_server(method):
            raise ConfigError(f"{method} needs a server beside its workers, which a probe does not start; leave it out")
        share = exchanges_per_step(method)
        layout = Layout(tuple(map(str, range(len(self.sizes)))), tuple(torch.Size([size]) for size in self.sizes))
        alike, sums = apart(method, layout)
        if not sums.per_step:
            return self._exchange(alike, self.limit_s).times(share)
        found = self._exchange(alike, self.limit_s / 2).times(share - sums.instead)
        return found.plus(self._exchange(GradientAveraging(), self.limit_s / 2).times(sums.per_step))

    def _exchange(self, method: Method, limit_s: float) -> Cost:
        """One exchange of a method of which all are alike."""
        subject = Subject(method, self.transport.rank, self.transport.size, self.vectors)
        found: list[Cost] = []
        spent_s = 0.0
        for numel in _lengths(sum(self.sizes)):
            is_full = numel == sum(self.sizes)
            # A longer vector takes longer in proportion, and is exchanged twice at least.
            if found and spent_s + 2 * found[-1].seconds * numel / found[-1].measured_numel > limit_s:
                return _line(found[-2:], sum(self.sizes))
            try:
                subject.begin(_cut(self.sizes, numel))
            except ConfigError:
                if is_full:
                    raise
                continue  # too short for this method
            before = self.transport.traffic
            rounds = ROUNDS if is_full else 1
            times = self._times(
                lambda: self.transport.run(subject.refill()), lambda: self.transport.run(subject.step()), rounds,
                limit_s - spent_s,
            )  # fmt: skip
            spent_s += 2 * sum(times)  # with the first, which is left out, and what is between rounds
            sent = (self.transport.traffic.bytes_sent - before.bytes_sent) / subject.num_exchanges
            received = (self.transport.traffic.bytes_received - before.bytes_received) / subject.num_exchanges
            most_sent, most_received = map(max, zip(*self.transport.share([sent, received]), strict=True))
            rounds = len(times) if is_full else 0
            found.append(Cost(statistics.median(times), most_sent, most_received, rounds, numel))
        return found[-1]

    def _times(
        self, prepare: Callable[[], None], exchange: Callable[[], None], rounds: int, limit_s: float
    ) -> list[float]:
        """Seconds of the slowest process in each round but the first, in which kernels may be compiled."""
        times: list[float] = []
        while len(times) < 2 or (len(times) <= rounds and sum(times[1:]) + 2 * times[-1] <= limit_s):
            prepare()
            self.transport.share([])  # nobody waits for one that comes late
            begin = time.perf_counter()
            exchange()
            finish(self.vectors[0].device)
            times.append(max(own for (own,) in self.transport.share([time.perf_counter() - begin])))
        return times[1:]


def _lengths(numel: int) -> list[int]:
    """Of the vectors that are exchanged one after another, as long as there is time."""
    return [*(part for part in (numel // 4**power for power in (4, 3, 2, 1)) if part >= _FEWEST), numel]


def _cut(sizes: Sequence[int], numel: int) -> list[int]:
    """The sizes of the first ``numel`` entries."""
    ends = [min(end, numel) for end in itertools.accumulate(sizes, initial=0)]
    return [stop - start for start, stop in itertools.pairwise(ends) if stop > start]


def _line(found: Sequence[Cost], numel: int) -> Cost:
    """The line through two costs, or from nothing to one, at ``numel`` entries."""
    first, last = (Cost(0.0, 0.0, 0.0, 0, 0), *found)[-2:]
    factor = (numel - last.measured_numel) / (last.measured_numel - first.measured_numel)

    def at(before: float, after: float) -> float:
        return after + factor * max(after - before, 0.0)

    return Cost(
        at(first.seconds, last.seconds), at(first.bytes_sent, last.bytes_sent),
        at(first.bytes_received, last.bytes_received), 0, last.measured_numel,
    )  # fmt: skip
