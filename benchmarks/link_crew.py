"""The processes of ``links.py``: they exchange what they are told to, one case after another, and time it."""

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from common_clock import CommonClock
from delayed_links import started
from torch import Tensor

from thinwire.distributed import Transport
from thinwire.steps import Steps, all_gather, all_reduce, as_it_is, receive, send

GLOO_LENGTHS_FIRST, GLOO_AT_ONCE, GLOO_SUM = "gloo, lengths first", "gloo, at once", "gloo all-reduce"
GATHER, GATHER_AT_MOST, LETTERS, SUM = "gather", "gather, at most known", "letters", "all-reduce"
WARM_UPS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed.

    Args:
        ways: of exchanging, each over connections of its own; with more than one they take turns.
        num_bytes: of every message, or of the vector.
        rounds: how many are timed.
        warm_ups: how many exchanges come before.
        idle_s: between two exchanges, whichever way they go.
    """

    ways: tuple[str, ...]
    num_bytes: int
    rounds: int
    warm_ups: int = WARM_UPS
    idle_s: float = 0.05


class Crew:
    """Processes that wait for cases."""

    def __init__(self, children: Sequence["subprocess.Popen[str]"]) -> None:
        self._children = children
        self.size = len(children)

    def time(self, case: Case) -> list[float]:
        """Median seconds of each way, on the process that took longest."""
        for child in self._children:
            assert child.stdin is not None
            print(json.dumps(asdict(case)), file=child.stdin, flush=True)
        output = self._children[0].stdout
        assert output is not None
        line = output.readline()
        if not line:
            raise RuntimeError(f"a process ended during {case}")
        found: list[float] = json.loads(line)
        return found


@contextlib.contextmanager
def crew(script: str, names: Sequence[str | None]) -> Iterator[Crew]:
    """A process in each namespace, or on the loopback interface for None, until the block ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started(script, names, ["--processes", str(len(names))], **pipes) as children:
        yield Crew(children)


def serve(rank: int, size: int, store: str) -> None:
    """What one process of the crew does."""
    torch.set_num_threads(1)
    kept = dist.FileStore(store, size)
    dist.init_process_group("gloo", store=kept, rank=rank, world_size=size)
    clock = CommonClock(f"{store}-clock", rank, size, limit_s=120.0)
    for line in sys.stdin:
        found = _time(Case(**json.loads(line)), clock, rank, size)
        if rank == 0:
            print(json.dumps(found), flush=True)


def _time(case: Case, clock: CommonClock, rank: int, size: int) -> list[float]:
    with contextlib.ExitStack() as stack:
        exchanges = [stack.enter_context(_exchange(way, case, rank, size)) for way in case.ways]
        times: list[list[float]] = [[] for _ in exchanges]
        for number in range(case.warm_ups + case.rounds):
            for exchange, found in zip(exchanges, times, strict=True):
                begin_s = clock.begin(case.idle_s)
                exchange()
                took_s = clock.most(time.perf_counter() - begin_s)
                if number >= case.warm_ups:
                    found.append(took_s)
        clock.begin()  # nobody closes what another one still waits at
    return [statistics.median(found) for found in times]


@contextlib.contextmanager
def _exchange(way: str, case: Case, rank: int, size: int) -> Iterator[Callable[[], object]]:
    """What one process does in one exchange."""
    message = torch.full((case.num_bytes,), rank, dtype=torch.uint8)
    vector = torch.full((case.num_bytes // 4,), float(rank))
    gloo: dict[str, Callable[[dist.ProcessGroup], object]] = {
        GLOO_LENGTHS_FIRST: lambda own: gloo_gather(message, None, own),
        GLOO_AT_ONCE: lambda own: gloo_gather(message, case.num_bytes, own),
        GLOO_SUM: lambda own: dist.all_reduce(vector, group=own),
    }
    if way in gloo:
        # It stays, as torch would give its name to the next one, and its connections with it.
        own = dist.new_group(backend="gloo")
        assert isinstance(own, dist.ProcessGroup)
        yield lambda: gloo[way](own)
        return
    transport = Transport()
    try:
        yield lambda: transport.run(program(way, message, vector, rank, size))
    finally:
        transport.close()


def program(way: str, message: Tensor, vector: Tensor, rank: int, size: int) -> Steps[Any]:
    """What is asked of thinwire's transport, or of its simulator."""
    if way == GATHER:
        return all_gather(message, list)
    if way == GATHER_AT_MOST:
        return all_gather(message, list, max_num_bytes=message.numel())
    if way == SUM:
        return all_reduce(vector)
    assert way == LETTERS, way
    return _letters(message, rank, size)


def _letters(message: Tensor, rank: int, size: int) -> Steps[None]:
    """Everybody writes to worker 0, which answers when it has read all."""
    if rank:
        yield from send(0, message)
        yield from receive(0, as_it_is)
        return
    for other in range(1, size):
        yield from receive(other, as_it_is)
    for other in range(1, size):
        yield from send(other, message)


def gloo_gather(message: Tensor, most_num_bytes: int | None, group: dist.ProcessGroup) -> list[Tensor]:
    """Everyone's messages by torch.distributed alone, of unknown length or of at most so many bytes."""
    peers = [rank for rank in range(dist.get_world_size(group)) if rank != dist.get_rank(group)]
    length = torch.tensor([message.numel()])
    lengths = {peer: torch.zeros(1, dtype=torch.int64) for peer in peers}
    arriving = [_works(dist.irecv(lengths[peer], group=group, group_src=peer)) for peer in peers]
    pending = [_works(dist.isend(length, group=group, group_dst=peer)) for peer in peers]
    if most_num_bytes is None:
        _wait(arriving)
        arriving = []
        bodies = {peer: torch.empty(int(lengths[peer]), dtype=torch.uint8) for peer in peers}
    else:
        bodies = {peer: torch.empty(most_num_bytes, dtype=torch.uint8) for peer in peers}
    arriving += [_works(dist.irecv(bodies[peer], group=group, group_src=peer)) for peer in peers]
    pending += [_works(dist.isend(message, group=group, group_dst=peer)) for peer in peers]
    _wait([*arriving, *pending])
    return [bodies[peer][: int(lengths[peer])] for peer in peers]


def _works(work: dist.Work | None) -> dist.Work:
    assert work is not None
    return work


def _wait(pending: Sequence[dist.Work]) -> None:
    for work in pending:
        work.wait()
