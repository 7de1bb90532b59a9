"""The sockets of a process: the door at which others fetch what it sends, and its own connections to their doors.

Who receives connects. So nobody can hand a process a message that it did not ask a known peer for, and each peer has a
socket of its own, with its own end. A door sends only to those who show its secret, which the process group carried.
"""

import contextlib
import math
import os
import secrets
import socket
import struct
import tempfile
from pathlib import Path

import zmq

from thinwire.distributed.link_options import LinkOptions
from thinwire.errors import ConfigError

HEARTBEATS_IN_LIMIT = 4
"""How often a silent peer is asked for a sign of life within the time after which it counts as gone."""

_HANDSHAKE_MS = 5000
_RETRY_MS = 200
_LONGEST_PATH = 100
"""Of a socket in the file system: the system allows 107."""
_LONGEST_REQUEST = 1024
"""Bytes that a door takes at once: greetings, receipts and the handshake are shorter; who sends more is cut off."""
_MOST_REQUESTS = 64
"""That wait to be read, of each connection: the rest stays with who sent it."""

_GREETING = struct.Struct("<16sIB")
_ROUND_TRIP_AT = 68
"""Where Linux's ``struct tcp_info`` has it, in microseconds."""


class Door:
    """Where the other processes connect, on this machine and from others, to fetch what is sent to them.

    Args:
        options: ports, and whether messages are encrypted.
        host: the interface or address to listen on.

    Raises:
        ConfigError: the interface is not there, or no port is free.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", options: LinkOptions, host: str) -> None:
        self.secret = secrets.token_bytes(16)
        """What who fetches must show."""
        self._ranks: dict[bytes, int] = {}
        self.socket = context.socket(zmq.ROUTER)
        self.socket.router_mandatory = True
        self.socket.linger = 0  # of a connection that its other end has closed; that of close() is for the others
        self.socket.sndhwm = 0
        self.socket.maxmsgsize = _LONGEST_REQUEST
        self.socket.rcvhwm = _MOST_REQUESTS
        self.socket.handshake_ivl = _HANDSHAKE_MS
        self._folder = Path(tempfile.mkdtemp(prefix="thinwire-", dir=_short_folder()))
        self.path = str(self._folder / "door")
        self.socket.bind(f"ipc://{self.path}")
        self.key = ""
        if options.encrypt:
            public, secret = zmq.curve_keypair()
            self.key = public.decode()
            self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
            self.socket.curve_server = True
        try:
            self.endpoint = _bind(self.socket, host, options.ports)
        except ConfigError:
            self.close(0)
            raise

    def stop_admitting(self, is_alone: bool) -> None:
        """All have come: nobody else finds the door in the file system or, if all are on this machine, on a port."""
        self._remove_path()
        if is_alone:
            self.socket.unbind(self.endpoint)

    def admit(self, identity: bytes, greeting: bytes) -> tuple[int, int] | None:
        """Which process greets over which of its connections; ``None`` if it is a stranger."""
        if len(greeting) != _GREETING.size:
            return None
        secret, rank, number = _GREETING.unpack(greeting)
        if not secrets.compare_digest(secret, self.secret):
            return None
        self._ranks[identity] = rank
        return rank, number

    def rank_of(self, identity: bytes) -> int | None:
        """Whose connection this is; ``None`` if it is a stranger's."""
        return self._ranks.get(identity)

    def close(self, linger_ms: int) -> None:
        """Close; what was sent goes on travelling for at most ``linger_ms``."""
        self._remove_path()
        self.socket.close(linger_ms)

    def _remove_path(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        with contextlib.suppress(FileNotFoundError):
            self._folder.rmdir()


def connect(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, key: str, connections: int, silence_s: float
) -> "tuple[zmq.Socket[bytes], zmq.Socket[bytes]]":
    """Connections to another process's door as one socket, and a second one that tells of their beginning and end.

    Args:
        endpoint: as ZeroMQ writes it.
        key: of the door; empty for connections that are not encrypted.
        connections: how many.
        silence_s: without a sign of life for so long, a connection ends.
    """
    fetching: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    fetching.linger = 0
    fetching.rcvhwm = 0  # the sender stops at what has not been taken; see peer.py
    fetching.ipv6 = "[" in endpoint
    fetching.reconnect_ivl = _RETRY_MS
    fetching.handshake_ivl = _HANDSHAKE_MS
    fetching.heartbeat_ivl = max(1, int(1000 * silence_s / HEARTBEATS_IN_LIMIT))
    fetching.heartbeat_timeout = max(1, int(1000 * silence_s * (1 - 1 / HEARTBEATS_IN_LIMIT)))
    if key:
        fetching.curve_publickey, fetching.curve_secretkey = zmq.curve_keypair()
        fetching.curve_serverkey = key.encode()
    monitor = fetching.get_monitor_socket(zmq.Event.CONNECTED | zmq.Event.DISCONNECTED)
    host, colon, port = endpoint.rpartition(":")
    for number in range(connections):
        # ZeroMQ makes one connection of a socket to an address; with more zeros before the port it is another address.
        fetching.connect(host + colon + "0" * number + port if number else endpoint)
    return fetching, monitor


def round_trip_s(file: int) -> float:
    """How long the way to the other end of a connection and back takes, as the system found; infinite if it cannot say.

    Args:
        file: of the connection's socket, which stays as it is.
    """
    try:
        with socket.socket(fileno=os.dup(file)) as connection:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ROUND_TRIP_AT + 4)
    except (OSError, AttributeError):
        return math.inf
    return float(struct.unpack_from("=I", info, _ROUND_TRIP_AT)[0]) * 1e-6


def greet(fetching: "zmq.Socket[bytes]", secret: bytes, rank: int, connections: int) -> None:
    """Show the door's secret on each connection: they take turns in what is sent."""
    for number in range(connections):
        fetching.send(_GREETING.pack(secret, rank, number))


def _short_folder() -> str:
    """Where temporary files go, or, if its name is too long for a socket's, where they go on every system."""
    found = tempfile.gettempdir()
    return found if len(found) < _LONGEST_PATH - len("/thinwire-12345678/door") else "/tmp"


def _bind(door: "zmq.Socket[bytes]", host: str, ports: tuple[int, int] | None) -> str:
    """Listen on a port; the endpoint at which others reach it."""
    door.ipv6 = ":" in host
    shown = f"[{host}]" if ":" in host else host
    candidates = ["*"] if ports is None else [str(port) for port in range(ports[0], ports[1] + 1)]
    for port in candidates:
        try:
            door.bind(f"tcp://{shown}:{port}")
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise ConfigError(
                    f"this process cannot listen on {host!r} ({error.strerror}); give LinkOptions(interface=...) the "
                    "name of an interface of this machine, such as eth0, or its address"
                ) from None
        else:
            return door.getsockopt_string(zmq.LAST_ENDPOINT)
    assert ports is not None
    raise ConfigError(
        f"all ports from {ports[0]} to {ports[1]} are taken on {host}; give LinkOptions(ports=...) a range with one "
        "for each handle of each process on this machine"
    )
