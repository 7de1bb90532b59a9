"""Links with a real rate and a real one-way latency between processes of this machine, where the kernel has no netem.

Each process gets a network namespace whose ``eth0`` is a tap device. ``forwarder.py`` reads what leaves it, holds it
for the latency and writes it to its destination; ``tc`` limits how fast it leaves, and the forwarder how fast it is
received. Without any limit the namespaces are on a bridge of the kernel. Linux, root and iproute2 are needed. What is
built is taken away again, also when the process that built it is killed.

    python benchmarks/delayed_links.py 100mbit 20ms        # round trip and throughput
"""

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import re
import selectors
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CONGESTION_CONTROL = "cubic"
"""What Linux has unless it was told otherwise; it is set, as a machine may have been told."""
HEADER_NUM_BYTES = 66
"""Of a packet: Ethernet 14, IP 20, TCP with time stamps 32."""
_QUEUE_MS = 400
_PORTS = (5001, 5002, 5003)
_MOST_AT_ONCE = 65536
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
_TUNSETOFFLOAD, _TUN_F_CSUM, _TUN_F_TSO4 = 0x400454D0, 0x01, 0x02
_LIBC, _PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
_FORWARDER = Path(__file__).with_name("forwarder.py")


def bits_per_second(bandwidth: str) -> float:
    """Of a bandwidth as ``tc`` writes it.

    Example:
        >>> bits_per_second("100mbit")
        100000000.0
    """
    match = re.fullmatch(r"([\d.]+)\s*([kmg]?)bit", bandwidth.lower())
    if match is None:
        raise ValueError(f"cannot read the bandwidth {bandwidth!r}; give 10mbit, 1gbit, or none")
    return float(match[1]) * {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}[match[2]]


def parse_seconds(text: str) -> float:
    """Of a time such as 20ms, 0.1s or 50us."""
    match = re.fullmatch(r"([\d.]+)\s*(us|ms|s)", text)
    if match is None:
        raise ValueError(f"cannot read the time {text!r}; give 20ms, 0.1s or 50us")
    return float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[match[2]]


def bandwidth_or_none(text: str) -> str | None:
    """An argument ``--bandwidth``: ``none`` is no limit."""
    if text == "none":
        return None
    bits_per_second(text)
    return text


def address(number: int) -> str:
    """Of the ``eth0`` in the namespace of that number."""
    return f"10.83.0.{number + 1}"


class Links:
    """Namespaces that can reach each other, and what is between them."""

    def __init__(self, names: list[str], forwarder: "subprocess.Popen[str]", is_switched: bool) -> None:
        self.names = names
        self._forwarder = forwarder
        self._is_switched = is_switched

    def set(self, bandwidth: str | None, latency_s: float, mtu: int = 1500) -> None:
        """Change the links; what is under way still comes as it would have."""
        if not self._is_switched:
            raise ValueError("links on a bridge have no rate and no latency; make them with one")
        byte_s = 0.0 if bandwidth is None else 8 / bits_per_second(bandwidth)
        # What a connection may hand over at once, to be cut by the card: half a millisecond, or nearly a frame.
        at_once = _MOST_AT_ONCE if bandwidth is None else min(_MOST_AT_ONCE, max(mtu + 14, int(5e-4 / byte_s)))
        for name in self.names:
            _run(f"ip -n {name} link set eth0 mtu {mtu} gso_max_size {at_once}")
            if bandwidth is None:
                subprocess.run(["tc", "-n", name, "qdisc", "del", "dev", "eth0", "root"], capture_output=True)
            else:
                # The forwarder spaces frames exactly; a small bucket only keeps the queue on the sender's side.
                limits = f"rate {bandwidth} burst {max(2 * (mtu + 14), 2 * at_once)} latency {_QUEUE_MS}ms"
                _run(f"tc -n {name} qdisc replace dev eth0 root tbf {limits}")
        self._ask({"byte_s": byte_s, "latency_s": latency_s})

    def counts(self) -> dict[str, float]:
        """What the forwarder counted since it was last asked: frames, dropped ones, and how late it was."""
        return self._ask({"counts": True})

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._forwarder.stdin is not None
        assert self._forwarder.stdout is not None
        print(json.dumps(order), file=self._forwarder.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._forwarder.stdout.readline())
        return answer


@contextlib.contextmanager
def namespaces(processes: int, bandwidth: str | None, latency_s: float, mtu: int = 1500) -> Iterator[Links]:
    """So many namespaces, connected until the block ends.

    Args:
        processes: how many.
        bandwidth: of every link in each direction, as ``tc`` writes it; None is no limit.
        latency_s: one way.
        mtu: of the interfaces; Python forwards about a gigabit a second in frames of 9000 bytes.
    """
    if os.geteuid() != 0:
        sys.exit("network namespaces need root: run this as root")
    names = [f"tw{os.getpid()}-{number}" for number in range(processes)]
    is_switched = bandwidth is not None or latency_s > 0
    with _ends_when_asked(), contextlib.ExitStack() as stack:
        bridge = f"tw{os.getpid()}-bridge"
        for name in [*names, *([] if is_switched else [bridge])]:
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False, capture_output=True)
            _run(f"ip netns add {name}")
        if is_switched:
            fds = [stack.enter_context(_tap(name)) for name in names]
        else:
            fds = []
            _run(f"ip -n {bridge} link add bridge type bridge")
            _run(f"ip -n {bridge} link set bridge up")
            for number, name in enumerate(names):
                _run(f"ip -n {bridge} link add port{number} master bridge type veth peer name eth0 netns {name}")
                _run(f"ip -n {bridge} link set port{number} up")
        for number, name in enumerate(names):
            _configure(name, number, processes, mtu)
        forwarder = stack.enter_context(_forwarder([fd.fileno() for fd in fds], [*names, bridge]))
        links = Links(names, forwarder, is_switched)
        if is_switched:
            links.set(bandwidth, latency_s, mtu)
        yield links


def run_in_each(script: str, processes: int, bandwidth: str | None, latency_s: float, mtu: int = 1500) -> None:
    """Start the script with its own arguments, ``--rank`` and ``--store`` in every namespace, and wait for all."""
    with namespaces(processes, bandwidth, latency_s, mtu) as links, started(script, links.names, sys.argv[1:]) as all_:
        wait_for(all_)


@contextlib.contextmanager
def started(
    script: str, names: Sequence[str | None], arguments: Sequence[str], **options: Any
) -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that run the script with ``--rank`` and ``--store``, one in each namespace; ended with the block.

    Args:
        script: a path.
        names: of the namespaces; None is none, and the loopback interface.
        arguments: of the script.
        options: of Popen.
    """
    with tempfile.TemporaryDirectory() as folder, _ends_when_asked(), contextlib.ExitStack() as stack:
        children = []
        for rank, name in enumerate(names):
            environment = {**os.environ, "GLOO_SOCKET_IFNAME": "eth0" if name else "lo", "OMP_NUM_THREADS": "1"}
            inside = ["ip", "netns", "exec", name] if name else []
            own = ["--rank", str(rank), "--store", str(Path(folder, "store"))]
            command = [*inside, sys.executable, script, *arguments, *own]
            options = {**options, "env": environment, "text": True, "preexec_fn": _end_with_parent}
            children.append(subprocess.Popen(command, **options))
            stack.callback(_end, children[-1])
        yield children


def wait_for(children: Sequence["subprocess.Popen[str]"]) -> None:
    """Wait until all have ended, or one has failed: then this process ends, as the others may wait for that one."""
    with selectors.DefaultSelector() as selector:
        for rank, child in enumerate(children):
            selector.register(os.pidfd_open(child.pid), selectors.EVENT_READ, rank)
        while selector.get_map():
            for key, _ in selector.select():
                selector.unregister(key.fd)
                os.close(key.fd)
                if code := children[key.data].wait():
                    sys.exit(f"process {key.data} ended with {code}")


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL)


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _end(child: "subprocess.Popen[str]") -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def _ends_when_asked() -> Iterator[None]:
    """SIGTERM is an exception inside the block, so that what was built is taken away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _tap(name: str) -> Iterator[Any]:
    """A tap device, ``eth0`` of the namespace; it is there while the file is open."""
    with open("/dev/net/tun", "r+b", buffering=0) as file:
        os.set_blocking(file.fileno(), False)
        outside = f"tw{os.getpid() % 10**7}tap"
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(file.fileno(), _TUNSETIFF, struct.pack("16sH22x", outside.encode(), flags))
        fcntl.ioctl(file.fileno(), _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
        _run(f"ip link set {outside} netns {name} name eth0")
        yield file


def _mac(number: int) -> str:
    return f"02:00:00:00:00:{number + 1:02x}"


def _configure(name: str, number: int, processes: int, mtu: int) -> None:
    """Addresses, those of the others (nobody asks), and the congestion control of connections to them."""
    own = address(number)
    commands = [
        "link set lo up",
        "link set eth0 addrgenmode none",
        f"link set eth0 address {_mac(number)} mtu {mtu} txqueuelen 10000 up",
        f"addr add {own}/24 dev eth0",
        f"route replace {own[: own.rindex('.')]}.0/24 dev eth0 src {own} congctl {CONGESTION_CONTROL}",
    ]
    for other in set(range(processes)) - {number}:
        commands.append(f"neigh replace {address(other)} lladdr {_mac(other)} nud permanent dev eth0")
    subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(commands), text=True, check=True)
    # What one connection learnt about a link must not be what the next begins with.
    _run(f"ip netns exec {name} sysctl -qw net.ipv4.tcp_no_metrics_save=1")


@contextlib.contextmanager
def _forwarder(fds: list[int], names: list[str]) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, str(_FORWARDER), json.dumps([fds, names])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    # In a session of its own it does not get the signals of a terminal, and outlasts a parent that is killed.
    with subprocess.Popen(command, pass_fds=fds, text=True, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()  # what it would delete at the end of its input its parent deletes


def _receive_all(peers: Sequence[socket.socket]) -> float:
    """Bits a second of all that these send, from the first byte to the last."""
    count, begin_s, end_s = 0, 0.0, 0.0
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            selector.register(peer, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                part = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
                begin_s, end_s = begin_s or time.perf_counter(), time.perf_counter()
                count += len(part)
                if not part:
                    selector.unregister(key.fileobj)
    return 8 * count / (end_s - begin_s)


def _serve_test(num_senders: int) -> None:
    """What process 0 of the self-test does: it echoes, then receives from one, then from all at once."""
    with contextlib.ExitStack() as stack:
        echo, one, many = (stack.enter_context(socket.create_server((address(0), port))) for port in _PORTS)
        with echo.accept()[0] as peer:
            while byte := peer.recv(1):
                peer.sendall(byte)
        print(f"one sender: {_receive_all([one.accept()[0]]) / 1e6:.1f} Mbit/s", flush=True)
        peers = [many.accept()[0] for _ in range(num_senders)]
        for peer in peers:
            peer.sendall(b"!")
        print(f"{num_senders} senders to one receiver: {_receive_all(peers) / 1e6:.1f} Mbit/s together", flush=True)


def _connected(port: int) -> socket.socket:
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            peer = socket.create_connection((address(0), port))
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return peer


def _send_test(is_first: bool, num_bytes: int) -> None:
    if is_first:
        times = []
        with _connected(_PORTS[0]) as peer:
            for _ in range(50):
                begin = time.perf_counter()
                peer.sendall(b"x")
                peer.recv(1)
                times.append(1e3 * (time.perf_counter() - begin))
        took = f"there and back: {min(times):.2f} to {max(times):.2f} ms, median {statistics.median(times):.2f}"
        print(took, flush=True)
        with _connected(_PORTS[1]) as peer:
            peer.sendall(bytes(num_bytes))
    with _connected(_PORTS[2]) as peer:
        peer.recv(1)
        peer.sendall(bytes(num_bytes // 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bandwidth", type=bandwidth_or_none, help="of every link, such as 100mbit, or none")
    parser.add_argument("latency", type=parse_seconds, help="one way, such as 20ms")
    parser.add_argument("--mtu", type=int, default=1500)
    parser.add_argument("--senders", type=int, default=3)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    args = parser.parse_args()
    num_bytes = int((1e9 if args.bandwidth is None else bits_per_second(args.bandwidth)) / 8 * 4)
    if args.rank == 0:
        _serve_test(args.senders)
    elif args.rank is not None:
        _send_test(args.rank == 1, num_bytes)
    else:
        with namespaces(args.senders + 1, args.bandwidth, args.latency, args.mtu) as links:
            with started(__file__, links.names, sys.argv[1:]) as children:
                wait_for(children)
            print(json.dumps(links.counts()))


if __name__ == "__main__":
    main()
