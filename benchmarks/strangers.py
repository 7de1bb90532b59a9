"""What strangers on the network can do to a training between two machines: nothing that is seen in its result.

Two processes in two network namespaces train a small model. From a third one strangers throw random bytes at the ports
they listen on, begin ZeroMQ's handshake and go on with garbage, keep connections open, knock with a wrong key, with the
right key but without the secret, send messages that never end, and scan all ports. The same training is then repeated
alone: parameters must have the same bits, and memory and files must stay within bounds. Linux, root and iproute2 are
needed. What it builds it takes away again.

    python benchmarks/strangers.py --messages 1000000
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import zmq
from torch import nn

import thinwire
from thinwire.distributed import LinkOptions

METHOD = "topk:density=5%"
STEPS_AT_ONCE = 100
"""After so many the processes look whether they are to stop."""

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00%s" + bytes(32)
"""By which ZeroMQ's protocol begins, with the name of a mechanism in 20 bytes."""

_BODY = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER\x08Identity" + (0).to_bytes(4, "big")
READY = b"\x04" + bytes([len(_BODY)]) + _BODY
"""By which a plain connection is complete."""

HELD_OPEN = 300
"""Connections that are kept open at a time, without a word."""

ATTACK_LIMIT_S = 120.0
"""Of each attack."""

# The training.


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 8))


def listening_ports() -> list[int]:
    """On which this process listens."""
    own = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            own.add(os.readlink(f"/proc/self/fd/{name}").removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return [int(each[1].rpartition(":")[2], 16) for each in lines if each[3] == "0A" and each[9] in own]


def digest(model: nn.Module) -> str:
    hashed = hashlib.blake2b(digest_size=8)
    for param in model.parameters():
        hashed.update(param.detach().numpy().tobytes())
    return hashed.hexdigest()


def train(rank: int, folder: Path, encrypt: bool, steps: int) -> None:
    """So many steps; 0: until the file ``stop`` is there."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    groups_own = set(listening_ports())
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with thinwire.synchronize(optimizer, model, METHOD, links=LinkOptions(encrypt=encrypt)) as sync:
        ports = sorted(set(listening_ports()) - groups_own)
        key = sync.transport._links._door.key
        said = {"pid": os.getpid(), "ports": ports, "key": key, "host": f"10.84.0.{rank + 1}"}
        (folder / f"partial-{rank}").write_text(json.dumps(said))
        os.replace(folder / f"partial-{rank}", folder / f"ready-{rank}")
        generator = torch.Generator().manual_seed(rank)
        begin = time.perf_counter()
        done = 0
        durations = []
        while True:
            for _ in range(STEPS_AT_ONCE):
                step_begin = time.perf_counter()
                optimizer.zero_grad()
                x = torch.randn(16, 64, generator=generator)
                (model(x) - x[:, :8].sin()).square().mean().backward()
                optimizer.step()
                durations.append(time.perf_counter() - step_begin)
            done += STEPS_AT_ONCE
            stops = done == steps or (not steps and (folder / "stop").exists())
            if any(other[0] for other in sync.transport.share([float(stops)])):
                break
        seconds = time.perf_counter() - begin
    found = {
        "steps": done,
        "seconds": seconds,
        "step_ms": 1e3 * statistics.median(durations),
        "digest": digest(model),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }
    (folder / f"result-{rank}").write_text(json.dumps(found))
    os._exit(0)  # the process group is of no interest


# The strangers.


@dataclass
class Attack:
    """What was done to the doors."""

    name: str
    messages: int = 0
    num_bytes: int = 0
    connections: int = 0
    refused: int = 0
    """Connections that were not taken, or ended by the other side while something was sent."""
    seconds: float = 0.0


@dataclass
class Strangers:
    """Everything they do, one after another, to two doors."""

    doors: list[tuple[str, int]]
    keys: list[str]
    messages: int
    generator: random.Random = field(default_factory=lambda: random.Random(0))

    def all(self) -> Iterator[Attack]:
        works: dict[str, Callable[[Attack], None]] = {
            "random bytes": self.throw_bytes,
            "a greeting, then garbage": self.greet_and_throw,
            "silent connections": self.keep_open,
            "ZeroMQ, plain": lambda attack: self.speak(attack, "", ""),
            "ZeroMQ, wrong key": lambda attack: self.speak(attack, "wrong", ""),
            "ZeroMQ, right key, no secret": lambda attack: self.speak(attack, "right", ""),
            "ZeroMQ, right key, wrong secret": lambda attack: self.speak(attack, "right", "greets"),
            "messages that never end": self.never_end,
            "messages that are too long": self.send_long,
            "a scan of all ports": self.scan,
        }
        for name, work in works.items():
            attack = Attack(name)
            begin = time.monotonic()
            work(attack)
            attack.seconds = time.monotonic() - begin
            yield attack

    def _share(self, part: float) -> int:
        return int(self.messages * part / len(self.doors))

    def _raw(self, attack: Attack, first: bytes, count: int, per_connection: int) -> None:
        """Messages of random bytes over raw connections, after the same beginning."""
        before = attack.messages
        for number, door in enumerate(self.doors):
            deadline = time.monotonic() + ATTACK_LIMIT_S / len(self.doors)
            in_vain = 0
            while attack.messages < before + (number + 1) * count and time.monotonic() < deadline and in_vain < 3:
                in_vain += 1
                try:
                    with socket.create_connection(door, timeout=5.0) as connection:
                        attack.connections += 1
                        in_vain = 0
                        connection.sendall(first)
                        for _ in range(per_connection):
                            data = self.generator.randbytes(self.generator.randint(1, 100))
                            connection.sendall(data)
                            attack.messages += 1
                            attack.num_bytes += len(data)
                except OSError:
                    attack.refused += 1

    def throw_bytes(self, attack: Attack) -> None:
        self._raw(attack, b"", self._share(0.6), 50)

    def greet_and_throw(self, attack: Attack) -> None:
        for mechanism in (b"NULL", b"CURVE", b"PLAIN", b"NONSENSE"):
            self._raw(attack, GREETING % mechanism.ljust(20, b"\0"), self._share(0.1), 50)

    def keep_open(self, attack: Attack) -> None:
        """Twice for longer than a handshake may take."""
        for _ in range(2):
            held = []
            deadline = time.monotonic() + 5.0
            for number in range(HELD_OPEN):
                if time.monotonic() > deadline:
                    break
                with contextlib.suppress(OSError):
                    held.append(socket.create_connection(self.doors[number % 2], timeout=2.0))
                    attack.connections += 1
            time.sleep(6.0)
            for connection in held:
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    try:
                        while connection.recv(100):
                            pass
                        attack.refused += 1  # cut off
                    except ConnectionError:
                        attack.refused += 1
                connection.close()

    @contextlib.contextmanager
    def _socket(self, attack: Attack, number: int, key: str, kind: int) -> Iterator["zmq.Socket[bytes]"]:
        """A socket that connects to one of the doors; ``key`` is empty, ``wrong`` or ``right``."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        (host, port), right = self.doors[number % 2], self.keys[number % 2]
        made = context.socket(kind)
        made.sndtimeo, made.reconnect_ivl = 500, 10
        if key == "wrong" or (key == "right" and right):
            made.curve_publickey, made.curve_secretkey = zmq.curve_keypair()
            made.curve_serverkey = right.encode() if key == "right" else zmq.curve_keypair()[0]
        monitor = made.get_monitor_socket(zmq.Event.CONNECTED | zmq.Event.DISCONNECTED)
        made.connect(f"tcp://{host}:{port}")
        yield made
        # What may be delivered is delivered meanwhile; one that is cut off comes again and again.
        deadline = time.monotonic() + 1.5
        while (left_s := deadline - time.monotonic()) > 0:
            if monitor.poll(int(1 + 1000 * left_s)):
                event = int.from_bytes(monitor.recv_multipart()[0][:2], sys.byteorder)
                attack.connections += event == zmq.Event.CONNECTED
                attack.refused += event == zmq.Event.DISCONNECTED
        made.disable_monitor()
        monitor.close(0)
        made.close(0)
        context.term()

    def speak(self, attack: Attack, key: str, greets: str) -> None:
        """Well-formed messages; with ``greets`` they look like a peer's greeting."""
        count = max(1, int(self.messages * 0.05) // 6)
        for number, kind in enumerate((zmq.DEALER, zmq.DEALER, zmq.DEALER, zmq.DEALER, zmq.PUSH, zmq.PUSH)):
            with self._socket(attack, number, key, kind) as each, contextlib.suppress(zmq.Again):
                for turn in range(count):
                    size = 21 if greets else self.generator.randint(0, 64)
                    data = self.generator.randbytes(size)
                    if greets:
                        data = data[:16] + (turn % 3).to_bytes(4, "little") + bytes([turn % 4])
                    each.send(data)
                    attack.messages += 1
                    attack.num_bytes += size

    def never_end(self, attack: Attack) -> None:
        """Short parts of one message that has no end, over a plain connection: as many as for all others together."""
        part = b"\x01" + bytes([60]) + bytes(60)
        for door in self.doors:
            with contextlib.suppress(OSError), socket.create_connection(door, timeout=5.0) as connection:
                attack.connections += 1
                connection.sendall(GREETING % b"NULL".ljust(20, b"\0") + READY)
                connection.recv(1000)  # its greeting
                for _ in range(self._share(0.5) // 100):
                    connection.sendall(100 * part)
                    attack.messages += 100
                    attack.num_bytes += 100 * len(part)
                time.sleep(2.0)

    def send_long(self, attack: Attack) -> None:
        for number in range(4):
            with self._socket(attack, number, "right", zmq.DEALER) as each, contextlib.suppress(zmq.Again):
                for size in (1025, 100_000, 50_000_000):
                    each.send(bytes(size))
                    attack.messages += 1
                    attack.num_bytes += size

    def scan(self, attack: Attack) -> None:
        for host in {host for host, _ in self.doors}:
            for port in range(1, 1 << 16):
                with socket.socket() as probe:
                    probe.settimeout(1.0)
                    if probe.connect_ex((host, port)):
                        attack.refused += 1
                    else:
                        attack.connections += 1


def attack(args: argparse.Namespace) -> None:
    """What the process of the strangers does."""
    ready = [json.loads((Path(args.folder) / f"ready-{rank}").read_text()) for rank in range(2)]
    doors = [(each["host"], port) for each in ready for port in each["ports"]]
    strangers = Strangers(doors, [each["key"] for each in ready for _ in each["ports"]], args.messages)
    for done in strangers.all():
        print(
            f"  {done.name:34s} {done.messages:9,d} messages {done.num_bytes / 1e6:8.1f} MB "
            f"{done.connections:7,d} connections {done.refused:7,d} refused {done.seconds:6.1f} s", flush=True,
        )  # fmt: skip


# Both.


@contextlib.contextmanager
def namespaces(count: int) -> Iterator[list[str]]:
    """So many, each with an interface ``eth0`` on one bridge."""

    def run(command: str) -> None:
        subprocess.run(command.split(), check=True, capture_output=True, text=True)

    # Also who is asked to end takes away what was built.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    own = os.getpid() % 10000
    names = [f"st{own}-{number}" for number in range(count)]
    bridge = f"stbr{own}"
    try:
        run(f"ip link add {bridge} type bridge")
        run(f"ip link set {bridge} up")
        for number, name in enumerate(names):
            outside = f"stv{own}-{number}"
            run(f"ip netns add {name}")
            run(f"ip link add {outside} type veth peer name eth0 netns {name}")
            run(f"ip link set {outside} master {bridge} up")
            run(f"ip -n {name} addr add 10.84.0.{number + 1}/24 dev eth0")
            run(f"ip -n {name} link set lo up")
            run(f"ip -n {name} link set eth0 up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)


@dataclass
class Watch:
    """The most memory and open files that processes were seen to have."""

    pids: list[int]
    peak_mb: float = 0.0
    files: int = 0
    _ends: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._ends.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ends.wait(0.05):
            for pid in self.pids:
                with contextlib.suppress(OSError):
                    self.files = max(self.files, len(os.listdir(f"/proc/{pid}/fd")))
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                    self.peak_mb = max(self.peak_mb, pages * resource.getpagesize() / 1e6)


def training(names: list[str], args: argparse.Namespace, encrypt: bool, steps: int, strangers: bool) -> dict[str, Any]:
    """One training, alone or among strangers; what it came to."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}

        def start(name: str, *more: str) -> "subprocess.Popen[bytes]":
            command = ["ip", "netns", "exec", name, sys.executable, __file__, "--folder", folder, *more]
            return subprocess.Popen(command, env=environment)

        common = ["--steps", str(steps), *([] if encrypt else ["--plain"])]
        children = [start(names[rank], "--rank", str(rank), *common) for rank in range(2)]
        others = []
        try:
            ready = [wait_for(Path(folder, f"ready-{rank}"), children) for rank in range(2)]
            with Watch([each["pid"] for each in ready]) as watch:
                if strangers:
                    others = [start(names[2], "--attacks", "--messages", str(args.messages))]
                    if others[0].wait(15 * ATTACK_LIMIT_S):
                        sys.exit("the strangers broke off")
                    Path(folder, "stop").touch()
                codes = [child.wait(15 * ATTACK_LIMIT_S) for child in children]
            if any(codes):
                sys.exit(f"the training ended with {codes}")
        finally:
            for child in [*children, *others]:
                if child.poll() is None:
                    child.kill()
                    child.wait()
        results = [json.loads(Path(folder, f"result-{rank}").read_text()) for rank in range(2)]
    return {
        "digests": [each["digest"] for each in results],
        "steps": results[0]["steps"],
        "seconds": max(each["seconds"] for each in results),
        "step_ms": max(each["step_ms"] for each in results),
        "peak_mb": max(watch.peak_mb, *(each["peak_mb"] for each in results)),
        "files": watch.files,
        "ports": [each["ports"] for each in ready],
    }


def wait_for(path: Path, children: "list[subprocess.Popen[bytes]]") -> dict[str, Any]:
    deadline = time.monotonic() + 60.0
    while not path.exists():
        if time.monotonic() > deadline or any(child.poll() is not None for child in children):
            sys.exit("the training did not begin")
        time.sleep(0.02)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--most-mb", type=float, default=64.0, help="that strangers may make a process larger by")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--attacks", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        train(args.rank, Path(args.folder), not args.plain, args.steps)
        return
    if args.attacks:
        attack(args)
        return
    if os.geteuid() != 0:
        sys.exit("network namespaces need root: run this as root")
    bad = False
    with namespaces(3) as names:
        for encrypt in (True, False):
            print(f"encrypt={encrypt}")
            among = training(names, args, encrypt, 0, True)
            alone = training(names, args, encrypt, among["steps"], False)
            same = among["digests"] == alone["digests"]
            for name, each in (("among strangers", among), ("alone", alone)):
                print(
                    f"  {name:16s} {each['steps']:7d} steps {each['seconds']:7.1f} s, median {each['step_ms']:.2f} ms; "
                    f"at most {each['peak_mb']:.1f} MB, {each['files']} files; listens on {each['ports']}"
                )
            print(f"  parameters: {'the same bits' if same else 'OTHER BITS'}")
            bad |= not same or among["peak_mb"] > alone["peak_mb"] + args.most_mb
    sys.exit(bad)


if __name__ == "__main__":
    main()
