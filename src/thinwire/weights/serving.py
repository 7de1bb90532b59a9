"""A trainer's store in memory, and over TCP: for workers that share no folder and no bucket with it."""

import threading
from collections.abc import Sequence
from typing import Any

import zmq

from thinwire.errors import ConfigError, StoreError, ThinwireError
from thinwire.stores import Store, check_name

_GET, _NAMES, _FOUND, _NONE, _REFUSED = b"get", b"names", b"found", b"none", b"refused"
_MAX_REQUEST_NUM_BYTES = 1 << 12
_MAX_ANSWER_NUM_BYTES = 1 << 10
"""Of what is in an answer beside an object."""
_MAX_NAMES_NUM_BYTES = 1 << 26


class MemoryStore:
    """A store in the memory of this process, for :class:`StoreServer` and for tests.

    Example:
        >>> store = MemoryStore()
        >>> store.create("a/b", b"first"), store.create("a/b", b"second"), store.get("a/b", 10), store.names("a")
        (True, False, b'first', ['a/b'])
    """

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, name: str, contents: bytes | memoryview) -> None:
        """Keep a copy."""
        with self._lock:
            self._objects[check_name(name)] = bytes(contents)

    def create(self, name: str, contents: bytes | memoryview) -> bool:
        """Keep a copy unless there is one."""
        with self._lock:
            if check_name(name) in self._objects:
                return False
            self._objects[name] = bytes(contents)
            return True

    def get(self, name: str, max_num_bytes: int) -> bytes | None:
        """The object itself."""
        with self._lock:
            contents = self._objects.get(check_name(name))
        if contents is not None and len(contents) > max_num_bytes:
            raise StoreError(f"the object {name!r} is longer than the {max_num_bytes} bytes that were expected")
        return contents

    def names(self, under: str) -> Sequence[str]:
        """Names below another one."""
        start = f"{check_name(under)}/" if under else ""
        with self._lock:
            return sorted(name for name in self._objects if name.startswith(start))

    def delete(self, name: str) -> None:
        """Forget it."""
        with self._lock:
            self._objects.pop(check_name(name), None)


class StoreServer:
    """Lets other processes read a store over TCP, by a thread of its own, until it is closed.

    Whoever reaches the address can read, and nobody can write. There is no encryption: keep it inside a
    trusted network.

    Args:
        store: what is read.
        address: of ZeroMQ, such as ``tcp://10.0.0.1:5555``; the default is a free port that only this machine reaches.

    Raises:
        ConfigError: the address cannot be listened at.

    Example:
        >>> store = MemoryStore()
        >>> store.put("w/latest", b"7")
        >>> with StoreServer(store) as server:
        ...     RemoteStore(server.address).get("w/latest", 10)
        b'7'
    """

    def __init__(self, store: Store, address: str = "tcp://127.0.0.1:*") -> None:
        self._store = store
        self._context: Any = zmq.Context()
        self._socket: Any = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_REQUEST_NUM_BYTES)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close()
            self._context.term()
            raise ConfigError(
                f"{address} cannot be listened at ({error}); give an address like tcp://10.0.0.1:5555"
            ) from error
        self.address = str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))
        """Where it listens."""
        self._bell: Any = self._context.socket(zmq.PAIR)
        self._bell.bind("inproc://close")
        self._ear: Any = self._context.socket(zmq.PAIR)
        self._ear.connect("inproc://close")
        self._thread = threading.Thread(target=self._serve, name="thinwire-store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        if not self._context.closed:
            self._bell.send(b"")
            self._thread.join()
            for socket in (self._bell, self._ear, self._socket):
                socket.close()
            self._context.term()

    def __enter__(self) -> "StoreServer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._ear, zmq.POLLIN)
        while self._ear not in (ready := dict(poller.poll())):
            if self._socket in ready:
                who, *request = self._socket.recv_multipart()
                self._socket.send_multipart([who, *self._answer(request)])

    def _answer(self, request: Sequence[bytes]) -> list[bytes]:
        try:
            if len(request) == 4 and request[1] == _GET and len(request[3]) == 8:
                contents = self._store.get(request[2].decode("ascii"), int.from_bytes(request[3], "little"))
                return [b"", _NONE] if contents is None else [b"", _FOUND, contents]
            if len(request) == 3 and request[1] == _NAMES:
                return [b"", _FOUND, "\n".join(self._store.names(request[2].decode("ascii"))).encode()]
        except (ThinwireError, UnicodeDecodeError) as error:
            return [b"", _REFUSED, str(error).encode()[: _MAX_ANSWER_NUM_BYTES // 2]]
        return [b"", _REFUSED, b"a request that is not known"]


class RemoteStore:
    """The store behind a :class:`StoreServer`, to be read.

    Args:
        address: where that listens.
        timeout_s: seconds after which an answer is not waited for any more.

    Example:
        >>> RemoteStore("tcp://127.0.0.1:9", timeout_s=0.01).get("w/latest", 10)
        Traceback (most recent call last):
        ...
        thinwire.errors.StoreError: tcp://127.0.0.1:9 did not answer within 0.01 s
    """

    def __init__(self, address: str, timeout_s: float = 30.0) -> None:
        self._address, self._timeout_s = address, timeout_s

    def get(self, name: str, max_num_bytes: int) -> bytes | None:
        """Ask for the object; an answer that is longer than allowed is not taken."""
        request = [_GET, check_name(name).encode(), max_num_bytes.to_bytes(8, "little")]
        return self._ask(request, max_num_bytes)

    def names(self, under: str) -> Sequence[str]:
        """Ask for the names."""
        if under:
            check_name(under)
        listed = self._ask([_NAMES, under.encode()], _MAX_NAMES_NUM_BYTES)
        return listed.decode().split("\n") if listed else []

    def put(self, name: str, contents: bytes | memoryview) -> None:
        """Refused.

        Raises:
            StoreError: always.
        """
        raise self._read_only()

    def create(self, name: str, contents: bytes | memoryview) -> bool:
        """Refused.

        Raises:
            StoreError: always.
        """
        raise self._read_only()

    def delete(self, name: str) -> None:
        """Refused.

        Raises:
            StoreError: always.
        """
        raise self._read_only()

    def _read_only(self) -> StoreError:
        return StoreError(f"{self._address} is another process's store, which can only be read; write to that one")

    def _ask(self, request: list[bytes], max_num_bytes: int) -> bytes | None:
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.MAXMSGSIZE, max_num_bytes + _MAX_ANSWER_NUM_BYTES)
            try:
                socket.connect(self._address)
                socket.send_multipart(request)
                if not socket.poll(round(1000 * self._timeout_s)):
                    raise StoreError(f"{self._address} did not answer within {self._timeout_s} s")
                status, *rest = socket.recv_multipart()
            except zmq.ZMQError as error:
                raise StoreError(f"{self._address} cannot be asked ({error})") from error
        if status == _NONE and not rest:
            return None
        if status == _FOUND and len(rest) == 1 and len(rest[0]) <= max_num_bytes:
            return bytes(rest[0])
        said = rest[0].decode(errors="replace") if status == _REFUSED and rest else "an answer that is not known"
        raise StoreError(f"{self._address} refused: {said}")
