"""What a training step takes without communication, and when DDP hands its buckets over."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from thinwire.distributed import Transport
from thinwire.planner.family import RANK
from thinwire.planner.training_step import TrainingStep
from thinwire.step_time import Bucket, Compute, Exchange, Round, Way
from thinwire.step_time.curves import around_mean, quantile

BACKWARD = 2 / 3
"""Of a step whose seconds were given: backward computes twice what forward does."""
WARM_UPS, ROUNDS, LEAST_ROUNDS = 4, 60, 12
"""DDP makes new buckets after the first step, and PowerSGD begins with the third."""
BLOCK = 8
"""Steps that are timed together where none of them ends with an exchange."""
ONE_BUCKET_MB = 1e5
"""As ``bucket_cap_mb``: all gradients in one."""
_START_POWER_SGD = 2


@dataclass(frozen=True, slots=True)
class MeasuredCompute:
    """Steps of a model in DDP, of one process each, made by all processes at the same time.

    Args:
        rounds: of every step, the slowest process's moments.
        names: of each bucket's parameters.
    """

    rounds: tuple[Compute, ...]
    names: tuple[tuple[str, ...], ...]

    def at(self, share: float) -> Compute:
        """The mean of each moment, or as far from it as that quantile lies from the median."""
        buckets = tuple(
            Bucket(bucket.numel, around_mean([each.buckets[place].handed_s for each in self.rounds], share))
            for place, bucket in enumerate(self.rounds[0].buckets)
        )
        backward_s = around_mean([each.backward_s for each in self.rounds], share)
        rest_s = around_mean([each.step_s - each.backward_s for each in self.rounds], share)
        return Compute(buckets, backward_s, backward_s + rest_s)

    def lasting(self, compute_s: float) -> "MeasuredCompute":
        """The same buckets in a step of given seconds, whose backward makes gradients at one pace."""
        buckets = self.rounds[0].buckets
        total, done = sum(each.numel for each in buckets), 0
        spread: list[Bucket] = []
        for each in buckets:
            done += each.numel
            spread.append(Bucket(each.numel, compute_s * (1 - BACKWARD + BACKWARD * done / total)))
        return MeasuredCompute((Compute(tuple(spread), compute_s, compute_s),), self.names)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "MeasuredCompute":
        """The steps whose fields ``dataclasses.asdict`` gave."""
        rounds = tuple(
            Compute(tuple(Bucket(**bucket) for bucket in each["buckets"]), each["backward_s"], each["step_s"])
            for each in data["rounds"]
        )
        return MeasuredCompute(rounds, tuple(map(tuple, data["names"])))


@dataclass(slots=True, eq=False)
class _Moments:
    """What a hook of DDP notes, which exchanges nothing."""

    names: dict[int, str]
    buckets: list[tuple[tuple[str, ...], int, float]] = field(default_factory=list)

    def note(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """The bucket is handed over."""
        moment_s = time.perf_counter()
        names = tuple(self.names[id(param)] for param in bucket.parameters())
        self.buckets.append((names, bucket.buffer().numel(), moment_s))
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done


def _note(moments: _Moments, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    return moments.note(bucket)


def measure_compute(
    step: TrainingStep, transport: Transport, alone: dist.ProcessGroup, limit_s: float, bucket_mb: float | None = None
) -> MeasuredCompute:
    """Steps in DDP over one process, whose hook notes when it is called.

    Args:
        step: what is made.
        transport: by which processes begin together and tell their times.
        alone: a group of this process only.
        limit_s: about as long the measurement may take.
        bucket_mb: as DDP's ``bucket_cap_mb``.
    """
    model, make = step.fresh()
    moments = _Moments({id(param): name for name, param in model.named_parameters()})
    wrapped = DistributedDataParallel(model, process_group=alone, bucket_cap_mb=bucket_mb)
    wrapped.register_comm_hook(moments, _note)
    times = _steps(step, wrapped, make(model), transport, limit_s, moments)
    rounds = []
    for begin_s, backward_s, end_s, buckets in times:
        own = [backward_s - begin_s, end_s - begin_s, *(moment_s - begin_s for _, _, moment_s in buckets)]
        most = [max(each) for each in zip(*transport.share(own), strict=True)]
        handed = zip(buckets, most[2:], strict=True)
        rounds.append(Compute(tuple(Bucket(numel, at_s) for (_, numel, _), at_s in handed), most[0], most[1]))
    return MeasuredCompute(tuple(rounds), tuple(names for names, _, _ in times[0][3]))


@dataclass(frozen=True, slots=True)
class PlainSteps:
    """Steps without DDP, one after another in blocks that all processes begin at the same time.

    Args:
        mean_s: seconds of a step of each block, mean over the processes.
        most_s: those of the slowest one.
        block: steps of a block.
    """

    mean_s: tuple[float, ...]
    most_s: tuple[float, ...]
    block: int = 1

    def at(self, share: float, period: float) -> float:
        """That quantile of a step's seconds where processes wait for each other once in ``period`` steps.

        Who is slow in one step is often not so in the next: of what the slowest one takes beyond the mean, a sum of
        ``period`` independent steps has ``1 / sqrt(period)`` a step, that of a block ``1 / sqrt(block)``.
        """
        mean_s, most_s = around_mean(self.mean_s, share), around_mean(self.most_s, share)
        return mean_s + (most_s - mean_s) * math.sqrt(self.block / period)


def measure_plain(step: TrainingStep, transport: Transport, limit_s: float) -> PlainSteps:
    """Time steps without DDP.

    Processes that make local steps hear nothing of each other meanwhile: a barrier at every step would wake threads
    that take their processors.
    """
    model, make = step.fresh()
    optimizer = make(model)
    everyones: list[list[float]] = []
    first_s, spent_s = time.perf_counter(), 0.0
    while len(everyones) <= LEAST_ROUNDS // 2 or (len(everyones) <= ROUNDS and spent_s < limit_s):
        transport.share([])
        begin_s = time.perf_counter()
        for _ in range(BLOCK):
            optimizer.zero_grad()
            step.loss(model).backward()
            optimizer.step()
        end_s = time.perf_counter()
        told = transport.share([(end_s - begin_s) / BLOCK, end_s - first_s])
        everyones.append([each for each, _ in told])
        spent_s = told[0][1]  # the same for all, so that they make as many
    timed = everyones[1:]
    return PlainSteps(tuple(sum(each) / len(each) for each in timed), tuple(map(max, timed)), BLOCK)


def measure_power_sgd(
    step: TrainingStep, transport: Transport, alone: dist.ProcessGroup, limit_s: float, compute: MeasuredCompute
) -> tuple[Exchange, ...]:
    """What torch's PowerSGD hook computes beyond a step, and the three vectors that it adds up, of each round.

    Args:
        step: what is made.
        transport: of the processes.
        alone: a group of this process only.
        limit_s: about as long the measurement may take.
        compute: the same steps in one bucket without the hook.
    """
    model, make = step.fresh()
    wrapped = DistributedDataParallel(model, process_group=alone, bucket_cap_mb=ONE_BUCKET_MB)
    state = powerSGD_hook.PowerSGDState(alone, matrix_approximation_rank=RANK, start_powerSGD_iter=_START_POWER_SGD)
    wrapped.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    times = _steps(step, wrapped, make(model), transport, limit_s, None)
    first, second = state.p_memory_dict[0].numel(), state.q_memory_dict[0].numel()
    calls = state.iter - _START_POWER_SGD
    rest = round(state.total_numel_after_compression / calls) - first - second
    rounds = tuple(Round(Way.TORCH_SUM, 4 * numel) for numel in (rest, first, second))
    base_s = quantile([each.step_s for each in compute.rounds], 0.5)
    most = [max(own for (own,) in transport.share([end - begin])) for begin, _, end, _ in times]
    return tuple(Exchange(max(0.0, each - base_s), rounds) for each in most)


Times = tuple[float, float, float, list[tuple[tuple[str, ...], int, float]]]


def _steps(
    step: TrainingStep, model: nn.Module, optimizer: torch.optim.Optimizer, transport: Transport, limit_s: float,
    moments: _Moments | None,
) -> list[Times]:  # fmt: skip
    """When each step began, its backward ended and it ended, and the buckets; every process makes as many."""
    times: list[Times] = []
    first_s, spent_s = time.perf_counter(), 0.0
    while len(times) < WARM_UPS + LEAST_ROUNDS or (len(times) < WARM_UPS + ROUNDS and spent_s < limit_s):
        if moments is not None:
            moments.buckets.clear()
        transport.share([])
        begin_s = time.perf_counter()
        optimizer.zero_grad()
        step.loss(model).backward()
        backward_s = time.perf_counter()
        optimizer.step()
        end_s = time.perf_counter()
        times.append((begin_s, backward_s, end_s, list(moments.buckets) if moments else []))
        spent_s = transport.share([end_s - first_s])[0][0]
    return times[WARM_UPS:]


def group_of_one(transport: Transport) -> Any:
    """A process group of this process alone; every process calls it."""
    groups = [dist.new_group([rank], backend="gloo") for rank in range(transport.size)]
    return groups[transport.rank]
