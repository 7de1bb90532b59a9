"""What a process computes for an exchange and what it sends: tried with all workers in one process, on no link."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.distributed.bucket_exchange import BucketExchange
from thinwire.distributed.buckets import BucketChannels
from thinwire.distributed.comm_hook import on_gradients
from thinwire.distributed.dense_policy import DensePolicy
from thinwire.experiments.codec import Spent
from thinwire.layout import Layout
from thinwire.methods import Method
from thinwire.network import FRAME_NUM_BYTES, Network
from thinwire.planner.training_step import TrainingStep
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.step_time import Exchange, Round, Way
from thinwire.step_time.curves import quantile
from thinwire.steps import AllGather, AllReduce, Op, Steps, Tell
from thinwire.worker.exchange_runner import ExchangeRunner
from thinwire.worker.subject import Subject

WARM_UPS, ROUNDS = 2, 5
MOST_ENTRIES = 1 << 26
"""Of all workers' vectors together that are tried for ``synchronize``; longer ones are taken in proportion."""


@dataclass(frozen=True, slots=True)
class MeasuredExchange:
    """What one bucket's exchange, or a worker's, was found to take in each round.

    Args:
        rounds: the exchange each time.
        local_s: what the worker does at a step without an exchange.
    """

    rounds: tuple[Exchange, ...]
    local_s: float = 0.0

    def at(self, share: float) -> Exchange:
        """That quantile of the seconds of each part, and of the bytes."""
        first = self.rounds[0]
        rounds = tuple(
            Round(
                each.way,
                quantile([one.rounds[place].num_bytes for one in self.rounds], share),
                quantile([one.rounds[place].after_s for one in self.rounds], share),
            )
            for place, each in enumerate(first.rounds)
        )
        before_s = quantile([each.before_s for each in self.rounds], share)
        return Exchange(before_s, rounds, quantile([each.letters_s for each in self.rounds], share))

    def times(self, factor: float) -> "MeasuredExchange":
        """That of a vector so many times as long."""
        return self.of([factor * number for number in self.numbers()])

    def numbers(self) -> list[float]:
        """All of its numbers."""
        found = [self.local_s]
        for each in self.rounds:
            found += [each.before_s, each.letters_s]
            found += [number for one in each.rounds for number in (one.num_bytes, one.after_s)]
        return found

    def of(self, numbers: Sequence[float]) -> "MeasuredExchange":
        """The same with other :meth:`numbers`."""
        left = iter(numbers)
        local_s, rounds = next(left), []
        for each in self.rounds:
            before_s, letters_s = next(left), next(left)
            rounds.append(
                Exchange(before_s, tuple(Round(one.way, next(left), next(left)) for one in each.rounds), letters_s)
            )
        return MeasuredExchange(tuple(rounds), local_s)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "MeasuredExchange":
        """The exchange whose fields ``dataclasses.asdict`` gave."""
        rounds = tuple(
            Exchange(
                each["before_s"],
                tuple(Round(Way(one["way"]), one["num_bytes"], one["after_s"]) for one in each["rounds"]),
                each["letters_s"],
            )
            for each in data["rounds"]
        )
        return MeasuredExchange(rounds, data["local_s"])


def measure_synchronized(
    method: Method, layout: Layout, vectors: Sequence[Tensor], rank: int, size: int, network: Network
) -> MeasuredExchange:
    """The exchange of a worker under ``synchronize``.

    Args:
        method: what is exchanged and how, without a warm-up and with exchanges that are alike.
        layout: of the parameters.
        vectors: gradients, or displacements, of which each worker takes another one.
        rank: which worker's seconds count.
        size: number of workers.
        network: of messages between pairs, which no curve tells.

    Raises:
        ConfigError: a method that does not fit.
    """
    tried = _shortened(layout, size)
    subjects = [Subject(method, each, size, vectors) for each in range(size)]
    for subject in subjects:
        subject.begin_shapes(tried.shapes)
    Simulation(size).run([subject.set_out() for subject in subjects])
    found: list[Exchange] = []
    local: list[float] = []
    for _ in range(WARM_UPS + ROUNDS):
        begin_s, before = time.perf_counter(), subjects[0].num_steps
        Simulation(size).run([subject.refill() for subject in subjects])
        count = subjects[0].num_steps - before
        if count:
            local.append((time.perf_counter() - begin_s) / count / size)
        found.append(_tried([subject.step for subject in subjects], rank, network))
    # What refilling takes beside the local steps is small: it is done once for all of them.
    local_s = quantile(local[1:] or local, 0.5) if local else 0.0
    return MeasuredExchange(tuple(found[WARM_UPS:]), local_s).times(layout.numel / tried.numel)


def measure_hooked(
    method: Method, step: TrainingStep, buckets: Sequence[Sequence[str]], vectors: Sequence[Tensor], rank: int,
    size: int, network: Network,
) -> list[MeasuredExchange]:  # fmt: skip
    """The exchanges of a step's buckets under ``compress_ddp``.

    Args:
        method: one that the hook takes, without a warm-up and with exchanges that are alike.
        step: whose model it is.
        buckets: the names of the parameters of each.
        vectors: gradients, of which each worker takes another one.
        rank: which worker's seconds count.
        size: number of workers.
        network: of messages between pairs.

    Raises:
        ConfigError: a method that the hook does not take, or that does not fit.
    """
    layout = step.layout
    averaging = on_gradients(method)
    policy = DensePolicy().names_for(averaging, step.model, warns=False)
    key = Key(0).fold("ddp")
    exchanges = []
    for each in range(size):
        channels = BucketChannels(averaging, list(layout.names), policy, key, each, size, None)
        exchanges.append(BucketExchange(channels, ExchangeRunner(averaging, each, size, 0), None, None, None))
    found: list[list[Exchange]] = [[] for _ in buckets]
    for turn in range(WARM_UPS + ROUNDS):
        named = [_named(layout, vectors[(turn + each) % len(vectors)]) for each in range(size)]
        for number, names in enumerate(buckets):
            grads = [{name: each[name] for name in names} for each in named]
            programs = [
                functools.partial(_exchanged, exchange, own) for exchange, own in zip(exchanges, grads, strict=True)
            ]
            found[number].append(_tried(programs, rank, network))
    return [MeasuredExchange(tuple(each[WARM_UPS:])) for each in found]


def measure_casts(numels: Sequence[int], size: int) -> list[MeasuredExchange]:
    """What the ``bf16_compress_hook`` of DDP computes for buckets of so many entries: it rounds, divides and widens."""
    found = []
    for numel in numels:
        vector = torch.ones(numel, dtype=torch.float32, device=CPU)
        rounds = []
        for _ in range(WARM_UPS + ROUNDS):
            begin_s = time.perf_counter()
            sent = vector.to(torch.bfloat16).div_(size)
            middle_s = time.perf_counter()
            vector.copy_(sent)
            after = Round(Way.TORCH_SUM, 2 * numel, time.perf_counter() - middle_s)
            rounds.append(Exchange(middle_s - begin_s, (after,)))
        found.append(MeasuredExchange(tuple(rounds[WARM_UPS:])))
    return found


def _tried(programs: Sequence[Callable[[], Steps[None]]], rank: int, network: Network) -> Exchange:
    """Run the programs of all workers together; what that of ``rank`` computes, and what it waits for."""
    size = len(programs)
    asked: list[list[tuple[Op, float]]] = [[] for _ in programs]
    spent = Spent(
        size, time.perf_counter, lambda each, op: asked[each].append((op, spent.by_rank[each] + spent.by_all))
    )
    simulation = Simulation(size, network)
    simulation.run([spent.timed(program(), each) for each, program in enumerate(programs)])
    whole_s = spent.by_rank[rank] + spent.by_all
    together = all(isinstance(op, AllReduce | AllGather | Tell) for each in asked for op, _ in each)
    if not together:
        return Exchange(whole_s, letters_s=max(simulation.clocks))
    marks = [moment_s for _, moment_s in asked[rank]]
    ends = [*marks[1:], whole_s]
    rounds = []
    for place, (begin_s, end_s) in enumerate(zip(marks, ends, strict=True)):
        way, num_bytes = _round([each[place][0] for each in asked])
        rounds.append(Round(way, num_bytes, max(0.0, end_s - begin_s)))
    return Exchange(marks[0] if marks else whole_s, tuple(rounds))


def _round(ops: Sequence[Op]) -> tuple[Way, float]:
    sizes = []
    for op in ops:
        match op:
            case AllReduce(tensor=tensor):
                return Way.SUM, tensor.numel() * tensor.element_size()
            case AllGather(message=message) | Tell(message=message):
                sizes.append(message.numel() + FRAME_NUM_BYTES)
    return Way.GATHER, max(sizes)


def _exchanged(exchange: BucketExchange, grads: Mapping[str, Tensor]) -> Steps[None]:
    """A bucket as the hook exchanges it, with what is done once its gradients count."""
    exchanged = yield from exchange.program(grads, grads, keeps=True)
    exchange.finish(torch.empty(0, dtype=torch.float32, device=CPU), is_last=True, handed_s=0.0, exchanged=exchanged)
    exchange.write_kept({name: torch.empty_like(grad) for name, grad in grads.items()})
    exchange.settle()


def _named(layout: Layout, vector: Tensor) -> Mapping[str, Tensor]:
    return layout.unflatten(vector[: layout.numel].clone())


def _shortened(layout: Layout, size: int) -> Layout:
    """The first tensors, of so many entries that all workers' copies find room."""
    left = MOST_ENTRIES // size
    kept: list[tuple[str, torch.Size]] = []
    for name, shape in _tensors(layout):
        if kept and shape.numel() > left:
            break
        kept.append((name, shape))
        left -= shape.numel()
    return Layout(tuple(name for name, _ in kept), tuple(shape for _, shape in kept))


def _tensors(layout: Layout) -> Iterator[tuple[str, torch.Size]]:
    return zip(layout.names, layout.shapes, strict=True)
