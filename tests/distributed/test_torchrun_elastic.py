"""torchrun with machines that go and come: the script goes on from its last checkpoint at the new size by itself."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import elastic_main
import pytest
import torch
from torch import Tensor

DEADLINE_S = 300.0


class Agents:
    """Launchers, one for each machine that pretends to be one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self, *, has_store: bool = False) -> subprocess.Popen[bytes]:
        conf = (
            f"is_host={has_store},last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3,join_timeout=200"
        )
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2:3", "--nproc-per-node", "1", "--max-restarts",
            "5", "--monitor-interval", "0.1", "--rdzv-backend", "c10d", "--rdzv-id", "elastic", "--rdzv-endpoint",
            f"127.0.0.1:{self.port}", "--rdzv-conf", conf, elastic_main.__file__, str(self.folder),
        ]  # fmt: skip
        log = open(self.folder / f"agent-{len(self.running)}.log", "wb")  # noqa: SIM115
        with log:
            # Else torch 2.13 tells who joins later nothing of where the processes meet.
            env = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
            agent = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
        self.running.append(agent)
        return agent

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not is_so():
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.05)

    def told(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in sorted(self.folder.glob("agent-*.log")))


def kill(agent: "subprocess.Popen[bytes]") -> None:
    """The launcher and what it has started, as when a machine goes."""
    for line in Path("/proc").glob("[0-9]*/stat"):
        fields = line.read_text().rpartition(")")[2].split()
        if int(fields[3]) == agent.pid:  # its session; workers have one of their own
            continue
        if int(fields[1]) == agent.pid:
            os.kill(int(line.parent.name), signal.SIGKILL)
    os.killpg(agent.pid, signal.SIGKILL)
    agent.wait()


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    found = Agents(tmp_path)
    yield found
    for agent in found.running:
        if agent.poll() is None:
            kill(agent)


def mean_residual(folder: Path, begin: int, size: int) -> dict[str, Tensor]:
    states = [torch.load(folder / f"begin-{begin}-{rank}-of-{size}.pt", weights_only=True) for rank in range(size)]
    names = [name for name in states[0] if name.startswith("memory.")]
    return {name: torch.stack([state[name].double() for state in states]).mean(0) for name in names}


def saved_residual(folder: Path, step: int, size: int) -> dict[str, Tensor]:
    (place,) = folder.glob(f"checkpoints/*{step}*")
    files = sorted(place.glob("*.pt")) or sorted(each for each in place.iterdir() if "rank" in each.name)
    states = [torch.load(file, weights_only=True)["thinwire"]["worker"]["tensors"] for file in files]
    assert len(states) == size
    names = [name for name in states[0] if name.startswith("memory.")]
    return {name: torch.stack([state[name].double() for state in states]).mean(0) for name in names}


def test_a_machine_goes_and_another_comes(agents: Agents) -> None:
    folder = agents.folder
    first = agents.start(has_store=True)
    second, third = agents.start(), agents.start()
    agents.wait_for(lambda: all((folder / f"at-30-{rank}").exists() for rank in range(3)))
    owed = saved_residual(folder, 30, 3)
    kill(third)
    (folder / "killed").touch()
    agents.wait_for(lambda: all((folder / f"at-60-{rank}").exists() for rank in range(2)))
    owed_again = saved_residual(folder, 60, 2)
    fourth = agents.start()
    agents.wait_for(lambda: (folder / "begin-60-2-of-3.pt").exists())
    (folder / "joined").touch()
    agents.wait_for(lambda: all(agent.poll() is not None for agent in (first, second, fourth)))
    assert [agent.returncode for agent in (first, second, fourth)] == [0, 0, 0], agents.told()
    begun = {re.sub("-[0-9]-of", " of", path.stem) for path in folder.glob("begin-*.pt")}
    assert begun == {"begin-0 of-3", "begin-30 of-2", "begin-60 of-3"}
    for saved, now in ((owed, mean_residual(folder, 30, 2)), (owed_again, mean_residual(folder, 60, 3))):
        assert saved.keys() == now.keys()
        assert max(float(each.abs().max()) for each in saved.values()) > 1e-4
        for name, each in saved.items():
            torch.testing.assert_close(now[name], each, atol=1e-6, rtol=0)
    ends = [torch.load(folder / f"end-{rank}-of-3.pt", weights_only=True) for rank in range(3)]
    assert all(torch.equal(one, other) for end in ends[1:] for one, other in zip(ends[0], end, strict=True))
    assert "worker 2" in agents.told(), "who is left is told whom it lost"
