"""What compressing and decoding take on this machine, so that simulated seconds include it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, TypeVar

import torch

from thinwire.arrays import CPU
from thinwire.experiments.tasks import Task
from thinwire.experiments.training import make_crew, one_torch_thread
from thinwire.methods import GradientAveraging, Method, num_exchanges
from thinwire.network import Network
from thinwire.simulator import Simulation
from thinwire.steps import AllGather, Op, Receive, ReceiveAny, Steps, ask
from thinwire.worker import Server, Worker, can_share, needs_server

T = TypeVar("T")
CodecSeconds = tuple[float, float]
"""Processor seconds of an exchange beyond those of dense f32: of worker 0, which some exchanges make a server, and of
each other worker."""

NUM_EXCHANGES = 5
"""That count, after one that does not: the median of their times is taken."""
_LR = 1e-3
MAX_STEPS = 2_000
"""A method that exchanges more rarely than every 300 steps is measured by fewer exchanges."""


def measure_codecs(task: Task, methods: Mapping[str, tuple[Method, str]], workers: int) -> dict[str, CodecSeconds]:
    """What a step with an exchange takes on one thread of this machine, less what one of dense f32 takes.

    Gradients are noise of one scale: operators whose time depends on how heavy the tails are take another one in
    training. What is measured is a worker's own part: compression, memory, encoding, decoding what it receives. The
    server of an asynchronous method is a process of its own and is not charged.

    Args:
        task: whose model it is.
        methods: by name, each with its optimizer.
        workers: how many exchange.

    Raises:
        ConfigError: a method that does not fit the task's model.
    """
    dense = GradientAveraging()
    with one_torch_thread():
        compressed = {name: each for name, each in methods.items() if each[0] != dense}
        bases = {kind: _measure(task, dense, kind, workers) for kind in {kind for _, kind in compressed.values()}}
        found = {name: _measure(task, *each, workers) for name, each in compressed.items()}
    beyond = {
        name: (max(0.0, found[name][0] - bases[kind][0]), max(0.0, found[name][1] - bases[kind][1]))
        for name, (_, kind) in compressed.items()
    }
    return {name: beyond.get(name, (0.0, 0.0)) for name in methods}


def _measure(task: Task, method: Method, optimizer: str, size: int) -> tuple[float, float]:
    """Seconds of a step with an exchange, of worker 0 and of each other."""
    crew = make_crew(task, method, optimizer, _LR, range(size), size, 0)
    if needs_server(method):
        return _measure_served(task, method, crew)
    simulation = Simulation(size, Network())
    seconds: list[tuple[float, float]] = []
    generator = torch.Generator().manual_seed(0)
    for _ in range(MAX_STEPS):
        for worker in crew[:1] if can_share(method, crew[0].model) else crew:
            _take_noise(worker, generator)
        number, spent = crew[0].num_exchanges, Spent(size)
        simulation.run([spent.timed(worker.step(), worker.rank) for worker in crew])
        if crew[0].num_exchanges > number:
            lead, *others = [each + spent.by_all for each in spent.by_rank]
            seconds.append((lead, median(others or [lead])))
        if len(seconds) > NUM_EXCHANGES:
            break
    counted = seconds[1:] or seconds or [(0.0, 0.0)]
    return median(lead for lead, _ in counted), median(other for _, other in counted)


def _measure_served(task: Task, method: Method, crew: Sequence[Worker]) -> tuple[float, float]:
    """The same, where each worker has a clock of its own: the mean over its exchanges, local steps included."""
    size, spent, generator = len(crew), Spent(len(crew)), torch.Generator().manual_seed(0)
    stop = next((step for step in range(1, MAX_STEPS) if num_exchanges(method, 0, step) == NUM_EXCHANGES), MAX_STEPS)
    num_messages = sum(num_exchanges(method, rank, stop) for rank in range(size))

    def program(worker: Worker) -> Steps[None]:
        while True:
            _take_noise(worker, generator)
            number = worker.num_exchanges
            yield from spent.timed(worker.step(), worker.rank)
            if worker.num_exchanges > number and worker.is_paused:
                return

    server = Server(method, task.model(0), size=size)
    Simulation(size + 1, Network()).run([*map(program, crew), server.serve(num_messages)])
    lead, *others = [each / max(1, worker.num_exchanges) for each, worker in zip(spent.by_rank, crew, strict=True)]
    return lead, median(others or [lead])


def _take_noise(worker: Worker, generator: torch.Generator) -> None:
    for param in worker.model.parameters():
        if param.requires_grad:
            param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float32, device=CPU).to(param.dtype)


class Spent:
    """Seconds of programs that run in one simulation, apart from the simulation's own.

    Args:
        size: workers.
        clock: seconds, by default of this thread on a processor.
        heard: called with a worker and its request, before the request is performed.
    """

    def __init__(
        self, size: int, clock: Callable[[], float] = time.thread_time,
        heard: Callable[[int, Op], None] = lambda rank, op: None,
    ) -> None:  # fmt: skip
        self._clock, self._heard = clock, heard
        self.by_rank = [0.0] * size
        self.by_all = 0.0
        """What a simulation does once for all workers, and each process for itself."""

    def timed(self, program: Steps[T], rank: int) -> Steps[T]:
        """The same program, whose time is counted."""
        reply: Any = None
        while True:
            begin = self._clock()
            try:
                op = program.send(reply)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                self.by_rank[rank] += self._clock() - begin
            self._heard(rank, op)
            match op:
                case AllGather(combine=combine):
                    op = replace(op, combine=self._counted(combine, None))
                case Receive(read=read) | ReceiveAny(read=read):
                    op = replace(op, read=self._counted(read, rank))
            reply = yield from ask(op)

    def _counted(self, function: Callable[[Any], Any], rank: int | None) -> Callable[[Any], Any]:
        def counted(given: Any) -> Any:
            begin = self._clock()
            result = function(given)
            took = self._clock() - begin
            if rank is None:
                self.by_all += took
            else:
                self.by_rank[rank] += took
            return result

        return counted
