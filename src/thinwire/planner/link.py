"""What messages take between these processes: by their bytes, and by how long the link was idle before."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from thinwire.arrays import CPU
from thinwire.distributed import Transport
from thinwire.errors import ConfigError
from thinwire.step_time import Curve, LinkCurves, Way
from thinwire.step_time.curves import quantile
from thinwire.steps import all_gather, all_reduce

SIZES = (64, *(1 << power for power in range(12, 31, 2)))
"""Bytes: 64, 4 kB, and four times as many each time."""
LEAST_SIZES = 3
LONGEST_IDLE_S = 1.0
"""A connection that was idle for so long begins as slowly as it ever does."""
WARM_UPS, ROUNDS, LEAST_ROUNDS = 2, 8, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is to be measured of a way of communicating.

    Args:
        idle_s: seconds of silence before each message.
        most_bytes: of the longest message that is to be predicted.
    """

    idle_s: float
    most_bytes: float


@dataclass(frozen=True, slots=True)
class MeasuredLink:
    """Seconds of messages, of several rounds each.

    Args:
        points: of each way and idle time, by ascending bytes.
    """

    points: Mapping[tuple[Way, float], Sequence[tuple[int, tuple[float, ...]]]]

    def at(self, share: float) -> LinkCurves:
        """The curves through that quantile of the rounds."""
        curves: dict[Way, list[tuple[float, Curve]]] = {}
        for way, idle_s in sorted(self.points):
            found = tuple((float(size), quantile(seconds, share)) for size, seconds in self.points[way, idle_s])
            curves.setdefault(way, []).append((idle_s, Curve(found)))
        return LinkCurves({way: tuple(found) for way, found in curves.items()})

    def to_json(self) -> list[dict[str, Any]]:
        """An object for each point."""
        return [
            {"way": way.value, "idle_s": idle_s, "num_bytes": size, "seconds": list(seconds)}
            for (way, idle_s), found in self.points.items() for size, seconds in found
        ]  # fmt: skip

    @staticmethod
    def from_json(data: Sequence[Mapping[str, Any]]) -> "MeasuredLink":
        """The link whose :meth:`to_json` was kept."""
        points: dict[tuple[Way, float], list[tuple[int, tuple[float, ...]]]] = {}
        for each in data:
            found = points.setdefault((Way(each["way"]), each["idle_s"]), [])
            found.append((each["num_bytes"], tuple(each["seconds"])))
        return MeasuredLink(points)


def measure_curves(
    transport: Transport, needs: Mapping[Way, Sequence[Need]], limit_s: float
) -> MeasuredLink:  # fmt: skip
    """Time plain messages of growing sizes on every way that is needed, at the pace of a training step.

    As in training, a process waits, sends and receives, and begins to wait again as soon as it has all: what counts is
    the mean over the processes, of which one may be early by what another one is late. Nothing counts as traffic.

    Args:
        transport: of the processes.
        needs: of each way, for each idle time.
        limit_s: a message that takes so long is the last one of its curve, which goes on as a line.

    Raises:
        ConfigError: a single process, or an idle time or limit below 0.
        WorkerError: a peer is gone.
    """
    if transport.size == 1:
        raise ConfigError("a link between 1 process and itself was to be measured; start 2 or more, as with torchrun")
    if limit_s < 0 or any(need.idle_s < 0 for each in needs.values() for need in each):
        raise ConfigError(f"{needs} was to be measured for {limit_s} s; both times are 0 or more")
    before = transport.traffic
    points: dict[tuple[Way, float], list[tuple[int, tuple[float, ...]]]] = {}
    for way, wanted in needs.items():
        for need in sorted(wanted, key=lambda each: each.idle_s):
            idle_s = min(need.idle_s, LONGEST_IDLE_S)
            if (way, idle_s) not in points:
                points[way, idle_s] = _curve(transport, way, need, limit_s)
    transport.traffic = before
    return MeasuredLink(points)


def _curve(
    transport: Transport, way: Way, need: Need, limit_s: float
) -> list[tuple[int, tuple[float, ...]]]:  # fmt: skip
    found: list[tuple[int, tuple[float, ...]]] = []
    idle_s = min(need.idle_s, LONGEST_IDLE_S)
    for size in SIZES:
        found.append((size, _rounds(transport, _sender(transport, way, size), idle_s, limit_s)))
        took_s = quantile(found[-1][1], 0.5)
        if len(found) >= LEAST_SIZES and (size >= need.most_bytes or took_s > limit_s):
            break
    return found


def _rounds(transport: Transport, send: Callable[[], object], idle_s: float, limit_s: float) -> tuple[float, ...]:
    """Seconds of each round, mean over the processes, for about ``limit_s`` in all."""

    def round_s() -> float:
        time.sleep(idle_s)
        begin_s = time.perf_counter()
        send()
        return time.perf_counter() - begin_s

    transport.share([])
    round_s()  # connections are made, and buffers
    # All make as many rounds, though one clock does not say what another one does.
    expected_s = idle_s + transport.share([round_s()])[0][0]
    rounds = min(max(int(limit_s / expected_s), LEAST_ROUNDS), ROUNDS)
    for _ in range(WARM_UPS if rounds == ROUNDS else 0):
        round_s()
    everyones = transport.share([round_s() for _ in range(rounds)])
    return tuple(sum(each) / len(each) for each in zip(*everyones, strict=True))


def _sender(transport: Transport, way: Way, size: int) -> Callable[[], object]:
    if way is Way.GATHER:
        message = torch.zeros(size, dtype=torch.uint8, device=CPU)
        return lambda: transport.run(all_gather(message, list))
    vector = torch.zeros(size // 4, dtype=torch.float32, device=CPU)
    if way is Way.SUM:
        return lambda: transport.run(all_reduce(vector))
    return lambda: dist.all_reduce(vector)
