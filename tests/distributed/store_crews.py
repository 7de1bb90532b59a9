"""Workers as threads over one store, and a plain simulation of what they should come to."""

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from method_cases import Crew, backward, flat, small_model
from torch import Tensor

from thinwire.distributed import RoundSettings, StoreSynchronizer, synchronize_by_store
from thinwire.distributed.store_rounds import Patience
from thinwire.methods import Method
from thinwire.payloads import Dense, Sparse
from thinwire.steps import AllGather, Tell
from thinwire.stores import FolderStore, RunKey, Store
from thinwire.wire import encode
from thinwire.worker.averaging import Proposal
from thinwire.worker.rounds import Rounds

FAILED = threading.Event()
KEY = RunKey(bytes(range(32)))
QUICK = RoundSettings(poll_min_s=0.002, poll_max_s=0.01)
NUMEL = sum(param.numel() for param in small_model().parameters())
NOTHING = encode(Sparse(NUMEL, torch.empty(0, dtype=torch.int64), Dense(torch.empty(0, dtype=torch.float32))))


@dataclass
class Script:
    """Closes a round as soon as those are there that shall be; all of them, where nothing is said.

    Args:
        size: number of workers.
        expected: who shall be there, by round.
        after: what must have been there before a worker has looked for the last time, by round.
    """

    size: int
    expected: Mapping[int, Collection[int]] = field(default_factory=dict)
    after: Mapping[int, threading.Event] = field(default_factory=dict)
    asked: list[tuple[int, set[int]]] = field(default_factory=list)
    looked: set[tuple[int, int]] = field(default_factory=set)

    def is_over(
        self, number: int, present: Collection[int], missing: Collection[int], waited_s: float, durations_s: object
    ) -> bool:
        assert not FAILED.is_set(), "another worker has failed"
        self.asked.append((number, set(missing)))
        if number in self.after:
            has_looked = (threading.get_ident(), number) in self.looked
            if self.after[number].is_set():
                self.looked.add((threading.get_ident(), number))
            if not has_looked:
                return False
        return set(present) >= set(self.expected.get(number, range(self.size)))


class Watched:
    """A store that tells when something is there, and may do something to what is put."""

    def __init__(self, store: Store, change: Callable[[str, bytes], bytes] | None = None) -> None:
        self.store, self.change = store, change
        self.num_sent = self.num_received = 0
        self.written: dict[str, threading.Event] = {}

    def when(self, name: str) -> threading.Event:
        """Set once an object of the run's is there."""
        return self.written.setdefault(f"test/{name}", threading.Event())

    def put(self, name: str, contents: bytes | memoryview) -> None:
        self.num_sent += len(contents)
        self.store.put(name, bytes(contents) if self.change is None else self.change(name, bytes(contents)))
        self.written.setdefault(name, threading.Event()).set()

    def create(self, name: str, contents: bytes | memoryview) -> bool:
        self.num_sent += len(contents)
        is_made = self.store.create(name, contents)
        if is_made:
            self.written.setdefault(name, threading.Event()).set()
        return is_made

    def get(self, name: str, max_num_bytes: int) -> bytes | None:
        found = self.store.get(name, max_num_bytes)
        self.num_received += len(found or b"")
        return found

    def names(self, under: str) -> list[str]:
        return list(self.store.names(under))

    def delete(self, name: str) -> None:
        self.store.delete(name)


class Trainee:
    """A worker on least squares, whose batch depends on rank and step alone; counts how far its own steps have gone."""

    def __init__(
        self, method: Method | str, rank: int, size: int, store: Store, patience: Patience, **options: Any
    ) -> None:
        self.rank, self.model = rank, small_model()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=options.pop("momentum", 0.0))
        self.moved = torch.zeros(NUMEL, dtype=torch.float64)
        self.before = flat(self.model).double()
        self.optimizer.register_step_pre_hook(lambda *_: self.note())
        self.optimizer.register_step_post_hook(lambda *_: self.count())
        settings = {"run": "test", "key": KEY, "seed": 5, "settings": QUICK, **options}
        self.handle: StoreSynchronizer = synchronize_by_store(
            self.optimizer, self.model, method, store=store, rank=rank, size=size, deadline=patience, **settings
        )

    def note(self) -> None:
        self.before = flat(self.model).double()

    def count(self) -> None:
        self.moved += self.before - flat(self.model).double()

    def step(self) -> None:
        backward(self.model, self.rank, self.handle.num_steps)
        self.optimizer.step()

    def train(self, num_steps: int) -> "Trainee":
        while self.handle.num_steps < num_steps:
            self.step()
        return self

    @property
    def point(self) -> Tensor:
        return torch.cat([each.reshape(-1) for each in self.handle.shared_parameters().values()])

    @property
    def owed(self) -> Tensor:
        """The residual, and what was not handed in yet."""
        kept = Rounds(self.handle.worker).memory()
        memory = torch.cat([each.double().reshape(-1) for each in kept.values()]) if kept else torch.zeros(1).double()
        return memory + self.point.double() - flat(self.model).double()


def together(*calls: Callable[[], Any]) -> list[Any]:
    """All at once, each in a thread; the first error, if there is one, after which nobody waits any longer."""
    FAILED.clear()
    with ThreadPoolExecutor(len(calls)) as threads:
        running = [threads.submit(call) for call in calls]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        errors = [each.exception() for each in done if each.exception() is not None]
        if errors:
            FAILED.set()
            raise errors[0] or AssertionError
        return [each.result() for each in running]


def trainees(
    method: Method | str, size: int, path: Path, patience: Patience | None = None, **options: Any
) -> list[Trainee]:
    return [Trainee(method, rank, size, FolderStore(path), patience or Script(size), **options) for rank in range(size)]


def check_conserved(crew: Collection[Trainee], moved: Mapping[int, Tensor] | None = None) -> None:
    """The common point has moved by what all have done and do not owe."""
    begin, size = flat(small_model()).double(), len(crew)
    done = sum((moved or {}).get(each.rank, each.moved) - each.owed for each in crew) / size
    assert isinstance(done, Tensor)
    for each in crew:
        torch.testing.assert_close(begin - each.point.double(), done, atol=1e-6, rtol=0)


@dataclass(frozen=True)
class Round:
    """Who trains before a round of the simulation, and whose messages count in it."""

    trains: Collection[int]
    counts: Collection[int]


def simulate(method: Method, size: int, every: int, rounds: Collection[Round]) -> Crew:
    """All in one process, one after another; a message that does not count is one that says nothing."""
    crew = Crew(method, size)
    for plan in rounds:
        for rank in plan.trains:
            for _ in range(every):
                backward(crew.models[rank], rank, crew.workers[rank].num_steps)
                crew.workers[rank].optimizer.step()
                is_due = Rounds(crew.workers[rank]).count_step()
            assert is_due
        for rank, proposal in enumerate(exchange(crew, plan.counts)):
            rounds_of = Rounds(crew.workers[rank])
            if rank in plan.counts:
                rounds_of.accept(proposal)
            else:
                rounds_of.follow(proposal)
    return crew


def exchange(crew: Crew, counts: Collection[int]) -> list[Proposal]:
    programs = [Rounds(worker).propose() for worker in crew.workers]
    ops, proposals = [next(program) for program in programs], []
    while all(isinstance(op, Tell) for op in ops):
        told = [op.message for op in ops if isinstance(op, Tell)]
        ops = [program.send(told) for program in programs]
    messages = [op.message if rank in counts else NOTHING for rank, op in enumerate(ops) if isinstance(op, AllGather)]
    for op, program in zip(ops, programs, strict=True):
        assert isinstance(op, AllGather)
        try:
            program.send(op.combine(messages))
        except StopIteration as stop:
            proposals.append(stop.value)
    return proposals
