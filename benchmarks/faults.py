"""What faults cost a training of participants that come and go, and whether it loses anything by them.

So many participants train a small model under a lighthouse of torchft. At random moments one of them gets SIGKILL, and
is started again some seconds later; or SIGSTOP, and SIGCONT 20 s later; or its link is down for a while (as root, with
``--links``: each participant is then in a network namespace). At the end all must hold the same model, and the account
of what was handed in and what is owed must balance. Printed are the exchanges that counted a second, times their
participants, against what the same faults leave to restarts that take no time; how many of the exchanges since a
participant came had its message in them, of all and of those during which it lived; the loss of the common model
against that of a run without faults, which is simulated; and the account.

    python benchmarks/faults.py --replicas 8 --minutes 30 --faults-an-hour 120 --links
    python benchmarks/faults.py --replicas 3 --minutes 0.2 --trap 0:voting@4 --trap 1:sending@8
"""

import argparse
import contextlib
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ.setdefault("RUST_LOG", "error")

import fault_replica as replica
import torch
from delayed_links import address, bandwidth_or_none, namespaces, parse_seconds
from fault_figures import Spell, commits_in, largest_move, participation_of_the_living, recoveries

import thinwire
from thinwire.methods import Outer
from thinwire.plugins import import_package

LIGHTHOUSE_PORT = 29510
KINDS = ("kill", "stop", "link")
FATES = ("new", "kept", "counted", "undone", "stale")
HANG_S = 150.0
"""What has not ended so long after it should have hangs."""


@dataclass
class Member:
    """A participant as the driver sees it."""

    number: int
    pid: int = 0
    is_up: bool = True
    down_s: float = 0.0
    """How long it could not train, by what was done to it."""
    back_at: float = 0.0
    kind: str = ""
    code: int | None = None
    away: list[Spell] = field(default_factory=list)
    """When it was killed, stopped or cut off."""

    def goes(self, kind: str, back_at: float) -> None:
        self.kind, self.back_at, self.is_up = kind, back_at, False
        self.away.append((time.time(), math.inf))

    def comes_back(self) -> None:
        self.kind, self.is_up = "", True
        self.away[-1] = (self.away[-1][0], time.time())


@dataclass
class Run:
    """Participants, faults, and the end."""

    args: argparse.Namespace
    plan: replica.Plan
    lighthouse: replica.Lighthouse
    names: list[str | None]
    traps: dict[int, list[replica.Trap]]
    members: list[Member] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)

    def begin(self) -> None:
        self.lighthouse.begin()
        for number in range(self.args.replicas):
            self.members.append(Member(number))
            self._start(self.members[number])

    def _start(self, member: Member) -> None:
        traps = self.traps.get(member.number, [])
        trap = traps.pop(0) if traps else None
        member.pid = replica.start(self.plan, member.number, trap, self.names[member.number])

    def strike(self, member: Member, kind: str, seconds: float, left_s: float) -> None:
        """Let a fault happen, which lasts so long; so much is left of the time that counts."""
        member.goes(kind, time.monotonic() + seconds)
        member.down_s += min(seconds, left_s)
        self.faults.append({"time": time.time(), "name": f"replica_{member.number}", "kind": kind, "seconds": seconds})
        if kind == "link":
            self._port(member, "down")
        else:
            os.kill(member.pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
            if kind == "kill":
                os.waitpid(member.pid, 0)

    def mend(self, now: float) -> None:
        """Let those come back whose time it is; and those whom a trap has ended or stopped."""
        for member in self.members:
            if not member.is_up and now >= member.back_at:
                if member.kind == "stop":
                    os.kill(member.pid, signal.SIGCONT)
                elif member.kind == "link":
                    self._port(member, "up")
                else:
                    self._start(member)
                member.comes_back()
            elif member.is_up and member.code is None:
                pid, status = os.waitpid(member.pid, os.WNOHANG | os.WUNTRACED)
                if not pid:
                    continue
                if os.WIFSTOPPED(status):
                    member.goes("stop", now + self.args.stop_s)
                elif os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                    member.goes("kill", now + self.args.down_s)
                else:
                    member.code = os.waitstatus_to_exitcode(status)
                    if member.code:
                        errors = (self.plan.folder / f"errors-{member.number}.txt").read_text()
                        sys.exit(f"replica_{member.number} ended with {member.code}:\n{errors[-4000:]}")

    def _port(self, member: Member, state: str) -> None:
        name = self.names[member.number]
        assert name is not None
        bridge = f"{name.rpartition('-')[0]}-bridge"
        subprocess.run(["ip", "-n", bridge, "link", "set", f"port{member.number}", state], check=True)

    def wait(self, seconds: float) -> None:
        """Pass the time, and let come back who comes back."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self.mend(now)
            time.sleep(min(0.05, max(0.0, end - now)))

    def end(self) -> None:
        """All train to the same step, and end."""
        while not all(member.is_up for member in self.members):
            self.wait(0.1)
        self.wait_for_commits(time.time())
        self.wait(self.args.calm_s)
        counted = [line for line in replica.lines(self.plan.folder) if line["event"] == "counted"]
        every = self.args.every
        until = (max((line["number"] for line in counted), default=0) + 3) * every
        partial = self.plan.folder / "end-at.partial"
        partial.write_text(str(until))
        partial.rename(self.plan.folder / "end-at")
        deadline = time.monotonic() + HANG_S
        while any(member.code is None for member in self.members):
            self.wait(0.1)
            if time.monotonic() > deadline:
                hanging = [member.number for member in self.members if member.code is None]
                sys.exit(f"replicas {hanging} hang; see {self.plan.folder}")

    def wait_for_traps(self) -> None:
        """Until all have closed."""
        deadline = time.monotonic() + HANG_S
        while sum(line["event"] == "struck" for line in replica.lines(self.plan.folder)) < len(self.args.trap):
            self.wait(0.1)
            if time.monotonic() > deadline:
                sys.exit(f"a trap has not closed; see {self.plan.folder}")

    def wait_for_commits(self, since: float) -> None:
        """Until an exchange has counted on each participant."""
        missing = {f"replica_{member.number}" for member in self.members}
        deadline = time.monotonic() + HANG_S
        while missing:
            self.wait(0.1)
            lines = replica.lines(self.plan.folder)
            missing -= {line["name"] for line in lines if line["event"] == "counted" and line["time"] > since}
            if time.monotonic() > deadline:
                sys.exit(f"nothing counts on {sorted(missing)}; see {self.plan.folder}")

    def clear(self) -> None:
        """Nobody is left."""
        for member in self.members:
            if member.code is None and member.pid:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(member.pid, signal.SIGKILL)
                    os.waitpid(member.pid, 0)
        self.lighthouse.end()


def simulated_loss(method: str, size: int, num_steps: int, stream: int = 0) -> float:
    """Of a run without faults: what processes do, bit for bit.

    Args:
        method: of the exchanges.
        size: number of participants.
        num_steps: of each.
        stream: of the batches; those of the processes are 0.
    """
    workers = []
    for rank in range(size):
        model = replica.network()
        optimizer = replica.optimizer_of(model, method)
        workers.append(thinwire.Worker(thinwire.parse_method(method), model, optimizer, rank=rank, size=size, seed=0))
    simulation = thinwire.Simulation(size)
    for step in range(num_steps):
        for rank, worker in enumerate(workers):
            worker.optimizer.zero_grad()
            replica.loss_of(worker.model, rank + 1000 * stream, step).backward()
        simulation.run([worker.step() for worker in workers])
    return replica.final_loss(replica.vector(workers[0].shared_parameters()))


def harass(run: Run, seconds: float, generator: random.Random) -> None:
    """Faults at random moments, one participant at a time, as long as enough are left."""
    args = run.args
    kinds = [kind for kind in args.kinds if kind != "link" or (args.links and not args.bandwidth)]
    end, said = time.monotonic() + seconds, time.monotonic()
    while (left := end - time.monotonic()) > 0 and len(run.faults) < args.most_faults:
        pause_s = generator.expovariate(args.faults_an_hour / 3600) if args.faults_an_hour else left
        run.wait(min(pause_s, left))
        up = [member for member in run.members if member.is_up]
        if pause_s < left and len(up) > args.min_size:
            kind, member = generator.choice(kinds), generator.choice(up)
            lasts_s = {"kill": args.down_s, "stop": args.stop_s, "link": args.link_down_s}[kind]
            run.strike(member, kind, lasts_s, end - time.monotonic())
        if time.monotonic() > said + 60:
            said = time.monotonic()
            counted = sum(line["event"] == "counted" for line in replica.lines(run.plan.folder))
            print(f"{(end - said) / 60:.0f} minutes left: {len(run.faults)} faults, {counted} counted", flush=True)


def measure(run: Run) -> dict[str, Any]:
    """A calm beginning, by which the rate without faults is known, then faults, and the end."""
    args, folder = run.args, run.plan.folder
    run.begin()
    while not any(line["event"] == "counted" for line in replica.lines(folder)):
        run.wait(0.1)
    begin = time.time()
    run.wait(args.calm_s)
    calm = commits_in(folder, begin, time.time()) / (time.time() - begin)
    begin = time.time()
    if args.restart_lighthouse:
        run.wait(1.0)
        run.lighthouse.end()
        run.wait(1.0)
        run.lighthouse.begin()
    run.wait_for_traps()
    harass(run, 60 * args.minutes, random.Random(args.seed))
    took_s = time.time() - begin
    counted = commits_in(folder, begin, time.time())
    up_s = args.replicas * took_s - sum(member.down_s for member in run.members)
    run.end()
    found = replica.account(folder, args.replicas)
    all_lines = replica.lines(folder)
    ended = [line for line in all_lines if line["event"] == "ended"]
    num_steps = args.every * max(line["number"] for line in all_lines if line["event"] == "counted")
    healed = [line for line in all_lines if line["event"] == "healed"]
    seconds = {
        name: {"median": sorted(each)[len(each) // 2], "most": max(each), "count": len(each)}
        for name, each in recoveries(folder, run.faults).items()
    }
    return {
        "replicas": args.replicas, "method": args.method, "minutes": took_s / 60, "faults": len(run.faults),
        "kinds": {kind: sum(each["kind"] == kind for each in run.faults) for kind in KINDS},
        "calm_commits_a_second": calm, "commits_a_second": counted / took_s,
        "share_of_ideal": counted / took_s / (calm * up_s / (args.replicas * took_s)) if calm else None,
        "participation": {line["name"]: line["commits"] / max(line["commits"] + line["missed"], 1) for line in ended},
        "participation_of_the_living": participation_of_the_living(
            all_lines, {f"replica_{member.number}": member.away for member in run.members}
        ),
        "smaller_quorums": sum(line["event"] == "counted" and line["size"] < args.replicas for line in all_lines),
        "failed_attempts": sum(line["event"] == "failed" for line in all_lines),
        "fates": {kind: sum(line["detail"] == kind for line in healed) for kind in FATES},
        "struck": [f"{line['name']} {line['stage']}" for line in all_lines if line["event"] == "struck"],
        "owed_moved": largest_move(all_lines), "seconds": seconds, "are_alike": found.are_alike, "moved": found.moved,
        "violation": found.violation if has_account(args.method) else None,
        "steps": num_steps, "loss": replica.final_loss(found.shared),
        "losses_without_faults": [
            simulated_loss(args.method, args.replicas, num_steps, stream) for stream in range(args.loss_streams)
        ],
    }  # fmt: skip


@contextlib.contextmanager
def places(args: argparse.Namespace) -> Iterator[tuple[list[str | None], str, str | None]]:
    """The network namespaces of the participants, and address and namespace of the lighthouse."""
    if not args.links:
        yield [None] * args.replicas, "127.0.0.1", None
        return
    with namespaces(args.replicas + 1, args.bandwidth, args.latency) as links:
        yield [*links.names[:-1]], address(args.replicas), links.names[-1]


def has_account(method: str) -> bool:
    """Whether the common model moves by what is handed in: all of it at once, with no outer momentum."""
    product = thinwire.parse_method(method)
    if isinstance(product, thinwire.GradientAveraging):
        return True
    return product.update == Outer() and product.fragments == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def traps_of(texts: list[str]) -> dict[int, list[replica.Trap]]:
    """Of ``number:stage@exchange``, for SIGSTOP with ``:stop``; a participant's later ones are for its later lives."""
    found: dict[int, list[replica.Trap]] = {}
    for text in texts:
        number, place, *how = text.split(":")
        stage, _, exchange = place.partition("@")
        sent = signal.SIGSTOP if how == ["stop"] else signal.SIGKILL
        found.setdefault(int(number), []).append(
            replica.Trap(stage=stage, exchange=int(exchange), signal_number=int(sent))
        )
    return found


def preload(method: str) -> None:
    """What participants are copies of has imported everything, and compiled its kernels."""
    torch.set_num_threads(1)
    import_package("torchft.coordination", "this benchmark", "torchft")
    simulated_loss(method, 2, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--faults-an-hour", type=float, default=120.0)
    parser.add_argument("--most-faults", type=int, default=sys.maxsize, help="after so many the run ends")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of faults")
    parser.add_argument("--method", default="signtopk:density=10%,every=4")
    parser.add_argument("--pace-s", type=float, default=0.05, help="what a step takes")
    parser.add_argument("--min-size", type=int, help="more than half of them by default")
    parser.add_argument("--timeout-s", type=float, default=5.0)
    parser.add_argument("--heartbeat-s", type=float, default=1.0, help="limit of the lighthouse")
    parser.add_argument("--join-s", type=float, default=1.0, help="limit of the lighthouse")
    parser.add_argument("--down-s", type=float, default=5.0, help="from a SIGKILL to the restart")
    parser.add_argument("--stop-s", type=float, default=20.0, help="from a SIGSTOP to its end")
    parser.add_argument("--link-down-s", type=float, default=3.0)
    parser.add_argument("--calm-s", type=float, default=10.0, help="without faults at the beginning and before the end")
    parser.add_argument("--loss-streams", type=int, default=3, help="runs without faults, each on data of its own")
    parser.add_argument("--links", action="store_true", help="namespaces, and links that go down; as root")
    parser.add_argument("--bandwidth", type=bandwidth_or_none, help="of every link; then none goes down")
    parser.add_argument("--latency", type=parse_seconds, default="0ms", help="one way, with --bandwidth")
    parser.add_argument("--width", type=int, default=replica.WIDTH, help="of the model: 22 parameters each")
    parser.add_argument("--trap", action="append", default=[], help="such as 0:voting@4, or 1:sending@8:stop")
    parser.add_argument("--restart-lighthouse", action="store_true")
    parser.add_argument("--no-state-files", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to leave what participants write")
    args = parser.parse_args()
    if args.folder and any(Path(args.folder).glob("*")):
        parser.error(
            f"--folder {args.folder} was given, which holds files that would be read as this run's; give a new one"
        )
    args.min_size = args.min_size or args.replicas // 2 + 1
    product = thinwire.parse_method(args.method)
    args.every = int(product.schedule.steps) if isinstance(product, thinwire.ModelAveraging) else 1  # type: ignore[attr-defined]
    replica.WIDTH = args.width
    preload(args.method)
    with tempfile.TemporaryDirectory() as temporary, places(args) as (names, host, inside):
        folder = Path(args.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        port = LIGHTHOUSE_PORT if args.links else free_port()
        lighthouse = replica.Lighthouse(host, port, folder, args.min_size, args.heartbeat_s, args.join_s, inside)
        plan = replica.Plan(
            folder=folder, lighthouse=lighthouse.address, method=args.method, pace_s=args.pace_s,
            min_size=args.min_size, timeout_s=args.timeout_s, keeps_file=not args.no_state_files,
        )  # fmt: skip
        run = Run(args, plan, lighthouse, names, traps_of(args.trap))
        try:
            found = measure(run)
        finally:
            run.clear()
    print(json.dumps(found))
    # Each exchange rounds the common point and a residual to f32.
    allowed = 1e-6 + 1e-7 * math.sqrt(found["steps"] / args.every) * max(found["moved"], 1.0)
    sys.exit(not found["are_alike"] or (found["violation"] or 0.0) > allowed)


if __name__ == "__main__":
    main()
