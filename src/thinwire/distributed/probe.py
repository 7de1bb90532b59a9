"""What exchanges cost between these processes, on given vectors and without a training script."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from thinwire.distributed.link_speed import dense_exchange_s
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.layout import views_like
from thinwire.methods import GradientAveraging, Method, ModelAveraging
from thinwire.network import Network, all_reduce_traffic
from thinwire.staging import finish
from thinwire.steps import Steps
from thinwire.worker import Worker, needs_server

BUCKET_NUMEL = 25 * (1 << 20) // 4
"""DDP's buckets hold 25 MiB."""
ROUNDS = 5
_WINDOW = 1 << 16
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

        Forward, backward, the optimizer and warm-up exchanges are left out.

        Raises:
            ConfigError: a method with a server process, local steps without end, or one that does not fit.
        """
        if needs_server(method):
            raise ConfigError(f"{method} needs a server beside its workers, which a probe does not start; leave it out")
        share = exchanges_per_step(method)
        rank, size = self.transport.rank, self.transport.size
        subject = Subject(replace(method, warm_up=None), rank, size, self.vectors)
        found: list[Cost] = []
        spent_s = 0.0
        for numel in _lengths(sum(self.sizes)):
            is_full = numel == sum(self.sizes)
            # A longer vector takes longer in proportion, and is exchanged twice at least.
            if found and spent_s + 2 * found[-1].seconds * numel / found[-1].measured_numel > self.limit_s:
                return _line(found[-2:], sum(self.sizes)).times(share)
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
                self.limit_s - spent_s,
            )  # fmt: skip
            spent_s += 2 * sum(times)  # with the first, which is left out, and what is between rounds
            sent = (self.transport.traffic.bytes_sent - before.bytes_sent) / subject.num_exchanges
            received = (self.transport.traffic.bytes_received - before.bytes_received) / subject.num_exchanges
            most_sent, most_received = map(max, zip(*self.transport.share([sent, received]), strict=True))
            rounds = len(times) if is_full else 0
            found.append(Cost(statistics.median(times), most_sent, most_received, rounds, numel))
        return found[-1].times(share)

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


def exchanges_per_step(method: Method) -> float:
    """The share of the steps after which there is an exchange, in the long run.

    Raises:
        ConfigError: next to none.

    Example:
        >>> from thinwire.methods import parse_method
        >>> exchanges_per_step(parse_method("local-sgd:every=8"))
        0.125
    """
    if isinstance(method, GradientAveraging):
        return 1.0
    due = [step for step in range(_WINDOW, 2 * _WINDOW) if method.schedule.due(step, 0)]
    if len(due) < 2:
        raise ConfigError(f"{method.schedule} has less than two exchanges in {_WINDOW} steps; give fewer local steps")
    return (len(due) - 1) / (due[-1] - due[0])


class Subject:
    """A worker whose model moves by given vectors and whose optimizer does nothing: its exchanges can be tried.

    Args:
        method: what the worker exchanges by.
        rank: which worker it is.
        size: number of workers.
        vectors: gradients, or displacements, used in turn.
    """

    def __init__(self, method: Method, rank: int, size: int, vectors: Sequence[Tensor]) -> None:
        self._method = method
        self._rank, self._size = rank, size
        self._vectors = vectors
        self._num_refills = rank

    @property
    def num_exchanges(self) -> int:
        """How many there were since :meth:`begin`."""
        return self._worker.num_exchanges

    @property
    def num_steps(self) -> int:
        """How many there were since :meth:`begin`."""
        return self._worker.num_steps

    def begin(self, sizes: Sequence[int]) -> None:
        """A new worker, for vectors of tensors of these sizes."""
        self.begin_shapes([torch.Size([size]) for size in sizes])

    def begin_shapes(self, shapes: Sequence[torch.Size]) -> None:
        """A new worker, for vectors of tensors of these shapes."""
        place = self._vectors[0].device
        zeros = [torch.zeros(shape, dtype=torch.float32, device=place) for shape in shapes]
        self._model = nn.ParameterList(map(nn.Parameter, zeros))
        self._params = list(self._model.parameters())
        optimizer = _NoOptimizer(self._params)
        for state in self._method.states if isinstance(self._method, ModelAveraging) else ():
            for param in self._params:
                optimizer.state[param][state.names[0]] = torch.zeros_like(param)
        self._worker = Worker(self._method, self._model, optimizer, rank=self._rank, size=self._size, seed=0)

    def set_out(self) -> Steps[None]:
        """A step that moves nothing: workers whose models have no common reference compare where they begin."""
        if isinstance(self._method, ModelAveraging):
            yield from self._worker.step()

    def refill(self) -> Steps[None]:
        """Take the local steps until there is an exchange after the next, then a gradient or a displacement."""
        method = self._method
        if isinstance(method, ModelAveraging):
            while not method.schedule.due(self._worker.num_steps + 1, self._rank):
                yield from self._worker.step()
        self._move()

    @torch.no_grad()
    def _move(self) -> None:
        is_gradient = isinstance(self._method, GradientAveraging)
        if is_gradient:
            for param in self._params:
                param.grad = torch.zeros_like(param) if param.grad is None else param.grad
            targets = [param.grad for param in self._params if param.grad is not None]
        else:
            targets = [param.detach() for param in self._params]
        vector = self._vectors[self._num_refills % len(self._vectors)]
        self._num_refills += 1
        views = views_like(vector[: sum(target.numel() for target in targets)], targets)
        if is_gradient:
            torch._foreach_copy_(targets, views)
        else:
            torch._foreach_sub_(targets, views)
            self._worker.accept_values()

    def step(self) -> Steps[None]:
        """The next step; after :meth:`refill` the one with an exchange."""
        yield from self._worker.step()


class _NoOptimizer(torch.optim.Optimizer):
    """Holds parameters and leaves them alone."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Do nothing."""


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
