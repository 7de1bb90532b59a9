"""One participant of ``faults.py``, the account of what it hands in, and how processes begin, fail and come back.

A participant is a copy of a process that has imported everything and has no threads. It writes a line for whatever
happens to it, and beside it, before it votes, what it hands in. From these files follows the account that must balance:
``x_0 - x_T = sum_p (D_p - m_p / P_p)``, entry by entry, with the common points ``x``, the drifts ``D_p`` that were
handed in (each over the number of participants then), and the residuals ``m_p`` of the end.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import thinwire
from thinwire.distributed.mail import Tag
from thinwire.fault_tolerance import entrance
from thinwire.fault_tolerance.session import Session
from thinwire.plugins import import_package

WIDTH, BATCH = 32, 32
NUM_INPUTS, SEED = 20, 3
_LIBC, _CLONE_NEWNET, _PR_SET_PDEATHSIG = ctypes.CDLL(None, use_errno=True), 0x40000000, 1
_BEFORE_DYING_S = 0.05
"""What has been handed over when the trap closes has left the process by then."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all participants do.

    Args:
        folder: where they write.
        lighthouse: its address.
        method: of the exchanges.
        pace_s: what a step takes at least.
        min_size: see :func:`thinwire.fault_tolerant`.
        timeout_s: see there.
        quorum_timeout_s: see there.
        keeps_file: whether they have state files.
    """

    folder: Path
    lighthouse: str
    method: str
    pace_s: float
    min_size: int
    timeout_s: float
    quorum_timeout_s: float = 120.0
    keeps_file: bool = True


@dataclass(frozen=True, kw_only=True)
class Trap:
    """What a participant does to itself.

    Args:
        stage: where: ``begun``, ``proposed`` or ``voted``; ``sending`` its message, or ``voting``: one of the others
            has all of it and the next ones nothing.
        exchange: in which, or the next in which it takes part.
        signal_number: the signal.
    """

    stage: str
    exchange: int
    signal_number: int = signal.SIGKILL


def network() -> nn.Module:
    """The same wherever it is made."""
    generator = torch.Generator().manual_seed(SEED)
    model = nn.Sequential(nn.Linear(NUM_INPUTS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=generator) * 0.2 * (32 / WIDTH) ** 0.5)
    return model


def optimizer_of(model: nn.Module, method: str) -> torch.optim.Optimizer:
    """A rate that a model of any width bears; without momentum where the account is of gradients."""
    momentum = 0.5 if unit_of(method) == 1.0 else 0.0
    return torch.optim.SGD(model.parameters(), lr=learning_rate(), momentum=momentum)


def learning_rate() -> float:
    return min(0.05, 1.6 / WIDTH)


def unit_of(method: str) -> float:
    """By what the common model moves for 1 of what is handed in: of gradients, the learning rate."""
    averages_gradients = isinstance(thinwire.parse_method(method), thinwire.GradientAveraging)
    return learning_rate() if averages_gradients else 1.0


def loss_of(model: nn.Module, number: int, step: int) -> Tensor:
    """Of the batch that participant ``number`` has at a step."""
    generator = torch.Generator().manual_seed(1_000_003 * number + step)
    x = torch.randn(BATCH, NUM_INPUTS, generator=generator)
    truth = torch.randn(NUM_INPUTS, 1, generator=torch.Generator().manual_seed(SEED + 1))
    return nn.functional.mse_loss(model(x), torch.tanh(x @ truth))


def final_loss(values: Tensor) -> float:
    """Of the common model, given as a vector, on data that nobody trains on."""
    model = network()
    nn.utils.vector_to_parameters(values, model.parameters())
    with torch.no_grad():
        return sum(float(loss_of(model, 10_000, step)) for step in range(64)) / 64


def vector(named: dict[str, Tensor]) -> Tensor:
    return torch.cat([each.detach().reshape(-1).clone() for each in named.values()])


class Replica:
    """What a process does."""

    def __init__(self, plan: Plan, number: int, trap: Trap | None) -> None:
        self.plan, self.number, self.trap = plan, number, trap
        self.name = f"replica_{number}"
        self.model = network()
        self.optimizer = optimizer_of(self.model, plan.method)
        self.unit = unit_of(plan.method)
        self.last = ""
        self.owed: Tensor | None = None
        """What it owed the common model when that was seen last, entry by entry; None if it has been told otherwise."""
        self.handle: thinwire.FaultTolerant | None = None
        self.session: Session | None = None

    def run(self) -> None:
        """Train until the file ``end-at`` says so."""
        plan = self.plan
        self.log("started")
        entrance.Session = self.make_session  # type: ignore[assignment, attr-defined]
        self.handle = handle = thinwire.fault_tolerant(
            self.optimizer, self.model, plan.method, name=self.name, lighthouse=plan.lighthouse, min_size=plan.min_size,
            state_file=plan.folder / f"state-{self.number}.pt" if plan.keeps_file else None,
            timeout=timedelta(seconds=plan.timeout_s), quorum_timeout=timedelta(seconds=plan.quorum_timeout_s),
        )  # fmt: skip
        with handle:
            while not self.is_over():
                begin = time.monotonic()
                self.optimizer.zero_grad()
                loss_of(self.model, self.number, handle.num_steps).backward()
                self.optimizer.step()
                time.sleep(max(0.0, plan.pace_s - (time.monotonic() - begin)))
        memory = handle.session.participant.rounds.memory()
        end = {
            "shared": vector(handle.shared_parameters()), "size": handle.worker.size,
            "memory": self.unit * vector(memory) if memory else torch.zeros(0),
        }  # fmt: skip
        torch.save(end, plan.folder / f"end-{self.number}.pt")
        known = handle.participation
        self.log(
            "ended", commits=known.num_commits, missed=known.num_missed, failed=known.num_failed, heals=known.num_heals,
            message_bytes=handle.message_bytes, bytes_sent=handle.bytes_sent,
        )  # fmt: skip

    def make_session(self, *args: Any) -> Session:
        """One that is watched from its first exchange on, which it makes while it joins."""
        self.session = Session(*args)
        self.session.observe = self.observe
        self.owed = self._owes()  # by its state file
        return self.session

    def is_over(self) -> bool:
        assert self.handle is not None
        path = self.plan.folder / "end-at"
        return path.exists() and self.handle.num_steps >= int(path.read_text())

    def observe(self, stage: str, detail: str) -> None:
        """Write down what has happened, and see whether it is time for the trap."""
        assert self.session is not None
        worker = self.session.participant.worker
        if stage == "begun" and self.owed is not None and self.owed.numel():
            self.log("resumed", size=worker.size, owed_moved=float((self._owes() - self.owed).abs().max()))
        if stage == "proposed":
            drift = vector(worker.shared_parameters()) - vector(worker.parameters())
            if self.session.participant.rounds.precedes_step:
                grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in self.model.parameters()]
                drift = self.unit * torch.cat([each.reshape(-1) for each in grads])
            torch.save(drift.double() / worker.size, self.plan.folder / f"handed-{self.name}-{detail}.pt")
        if stage == "counted":
            self.last = detail
            names = self.session.participation.names
            self.log("counted", attempt=detail, number=worker.num_exchanges, size=worker.size, names=names)
        elif stage in ("failed", "healed"):
            self.log(stage, detail=detail[:300], last=self.last)
        self.owed = None if stage == "healed" and detail not in ("new", "kept") else self._owes()
        self._spring(stage)

    def _owes(self) -> Tensor:
        """Its residual over the number of participants."""
        assert self.session is not None
        participant = self.session.participant
        memory = participant.rounds.memory()
        return (
            self.unit * vector(memory).double() / participant.worker.size
            if memory
            else torch.zeros(0, dtype=torch.float64)
        )

    def log(self, event: str, **more: Any) -> None:
        line = json.dumps({"time": time.time(), "name": self.name, "event": event, **more})
        with open(self.plan.folder / f"log-{self.number}.jsonl", "a") as file:
            file.write(line + "\n")

    def _spring(self, stage: str) -> None:
        trap, session = self.trap, self.session
        if trap is None or session is None or session.participant.worker.num_exchanges + 1 < trap.exchange:
            return
        if stage == trap.stage:
            self._strike(trap)
        elif (stage, trap.stage) in (("begun", "sending"), ("proposed", "voting")):
            crew = session._crew
            assert crew is not None
            links, send = crew.transport._links, crew.transport._links.send

            def send_once(rank: int, tag: Tag, message: Tensor, *, keeps: bool = True) -> None:
                send(rank, tag, message, keeps=keeps)
                time.sleep(_BEFORE_DYING_S)
                self._strike(trap)

            links.send = send_once  # type: ignore[method-assign]

    def _strike(self, trap: Trap) -> None:
        self.trap = None
        self.log("struck", stage=trap.stage, signal=trap.signal_number)
        os.kill(os.getpid(), trap.signal_number)


# How processes begin and end.


def fork(run: Callable[[], object], errors: Path, namespace: str | None) -> int:
    """A copy of this process that runs it and ends, with this one if not before; its number in the system."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if namespace is not None:
            with open(f"/run/netns/{namespace}") as file:
                if _LIBC.setns(file.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
        with open(errors, "a") as file:
            os.dup2(file.fileno(), 2)
        run()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # into its file
    finally:
        sys.stderr.flush()
        os._exit(code)


def start(plan: Plan, number: int, trap: Trap | None = None, namespace: str | None = None) -> int:
    """A participant."""
    return fork(Replica(plan, number, trap).run, plan.folder / f"errors-{number}.txt", namespace)


@dataclass
class Lighthouse:
    """One in a process of its own, which can end and come back at the same address.

    Args:
        host: where it listens.
        port: of it.
        folder: for its errors.
        min_replicas: without which there is no quorum.
        heartbeat_s: without a heartbeat for so long a participant is gone.
        join_s: how long it waits for those that live and do not ask.
        inside: of which network namespace, if it is in one.
    """

    host: str
    port: int
    folder: Path
    min_replicas: int
    heartbeat_s: float
    join_s: float
    inside: str | None = None
    pid: int = field(init=False, default=0)

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def begin(self) -> None:
        """Listen."""
        self.pid = fork(self._serve, self.folder / "errors-lighthouse.txt", self.inside)

    def end(self) -> None:
        """End at once."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.pid = 0

    def _serve(self) -> None:
        coordination = import_package("torchft.coordination", "this benchmark", "torchft")
        server = coordination.LighthouseServer(
            bind=f"{self.host}:{self.port}", min_replicas=self.min_replicas, quorum_tick_ms=50,
            heartbeat_timeout_ms=int(1000 * self.heartbeat_s), join_timeout_ms=int(1000 * self.join_s),
        )  # fmt: skip
        signal.pause()
        server.shutdown()


# What they have written.


def lines(folder: Path) -> list[dict[str, Any]]:
    """All that happened, in the order of time."""
    return sorted(_lines(folder), key=lambda line: float(line["time"]))


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    for path in folder.glob("log-*.jsonl"):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


@dataclass(frozen=True)
class Account:
    """What the files of a run say.

    Args:
        are_alike: whether all ended with the same common model, bit for bit.
        violation: the largest entry by which the account does not balance.
        moved: the largest entry by which the common model has moved.
        shared: the common model.
    """

    are_alike: bool
    violation: float
    moved: float
    shared: Tensor


def account(folder: Path, size: int) -> Account:
    """Of participants of which each has ended."""
    ends = [torch.load(folder / f"end-{number}.pt", weights_only=True) for number in range(size)]
    begin = vector(dict(network().named_parameters())).double()
    owed = sum((each["memory"].double() / each["size"] for each in ends if each["memory"].numel()), torch.zeros(1))
    handed = sum((torch.load(path, weights_only=True) for path in _counted(folder)), torch.zeros_like(begin))
    shared = ends[0]["shared"]
    moved = begin - shared.double()
    return Account(
        all(torch.equal(each["shared"], shared) for each in ends),
        float((moved - (handed - owed)).abs().max()), float(moved.abs().max()), shared,
    )  # fmt: skip


def _counted(folder: Path) -> list[Path]:
    """The files of all that was handed in and counted, or is owed again."""
    everything = lines(folder)
    undone = {line["last"] for line in everything if line["event"] == "healed" and line["detail"] == "undone"}
    # If all in whom an exchange had counted die before the next one, it is made again, under the same number.
    lineage = {
        line["number"]: (line["attempt"], line["names"])
        for line in everything
        if line["event"] == "counted" and line["attempt"] not in undone
    }
    found = {(name, attempt) for attempt, names in lineage.values() for name in names}
    # Who takes a message back owes it from then on, together with the drift that was in it.
    found |= {
        (line["name"], line["last"]) for line in everything if line["event"] == "healed" and line["detail"] == "undone"
    }
    return [folder / f"handed-{name}-{attempt}.pt" for name, attempt in sorted(found)]
