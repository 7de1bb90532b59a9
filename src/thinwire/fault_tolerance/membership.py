"""Who takes part in the next exchange: a lighthouse of torchft decides, and its heartbeats say who lives.

Of torchft only its coordination is used: a server in each process that sends heartbeats and asks for quorums, and a
store. Its ``Manager`` is not: its time limits, its process group and the state that it heals belong to training that
exchanges whole gradients, its error of one quorum is raised at the next one, and what it heals it unpickles.
"""

import contextlib
import hashlib
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import torch.distributed as dist

from thinwire.distributed.addresses import way_to
from thinwire.distributed.meeting import StoreMeeting
from thinwire.errors import ConfigError, WorkerError
from thinwire.plugins import import_package

T = TypeVar("T")

HEARTBEAT_INTERVAL = timedelta(milliseconds=100)
_CONNECT_TIMEOUT = timedelta(seconds=10)
_RETRY_S = 0.2
"""Between two attempts to reach a lighthouse that does not answer."""

_LOOK_S = 0.5
"""How often a process that waits for a quorum hears of Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Quorum:
    """Those who take part until the next quorum.

    Args:
        number: the lighthouse's; it begins anew with another lighthouse.
        rank: this process among them.
        members: the ids of all, in rank order: the participant's name, and what tells one life of it from the next.
        store: where they can meet, ``host:port``.
    """

    number: int
    rank: int
    members: tuple[str, ...]
    store: str

    @property
    def size(self) -> int:
        """Number of participants."""
        return len(self.members)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the participants, in rank order."""
        return tuple(member.rpartition(":")[0] for member in self.members)


class Membership(Protocol):
    """Says who takes part, and lets them meet."""

    def quorum(self, step: int, num_failures: int, limit_s: float) -> Quorum:
        """Wait for all that are there, and say who they are.

        Args:
            step: how many exchanges have counted here.
            num_failures: attempts that have failed since one counted.
            limit_s: how long to wait.

        Raises:
            WorkerError: no quorum by then.
        """
        ...

    def meet(self, quorum: Quorum, timeout: timedelta) -> StoreMeeting:
        """The meeting of a quorum.

        Raises:
            WorkerError: the store cannot be reached.
        """
        ...

    def close(self) -> None:
        """Take part no more."""
        ...


class LighthouseMembership:
    """Membership under a lighthouse of torchft; heartbeats begin at once, and others then wait for this process.

    Args:
        name: of this participant, the same when it comes back.
        lighthouse: its address, ``http://host:port``.
        limit_s: how long to wait until the lighthouse can be reached.

    Raises:
        ConfigError: torchft is not installed, or the name or the address cannot be one.
        WorkerError: the lighthouse was not reached.
    """

    def __init__(self, name: str, lighthouse: str, limit_s: float) -> None:
        if not re.fullmatch(r"[\w.-]{1,100}", name):
            raise ConfigError(
                f"the name {name!r} was given; give each participant one of its own, of letters, digits, '_', '.' "
                "and '-', that it has again when it comes back"
            )
        self.host = host_towards(lighthouse)
        """The address of this machine at which others reach it."""
        coordination = import_package("torchft.coordination", "thinwire.fault_tolerant", "torchft")
        self._store = dist.TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False)
        self._place, self._connected_to = self._store, f"{self.host}:{self._store.port}"
        self._last: StoreMeeting | None = None
        member = f"{name}:{uuid.uuid4()}"
        deadline = time.monotonic() + limit_s
        self._server = _patiently(
            lambda: coordination.ManagerServer(
                replica_id=member, lighthouse_addr=lighthouse, hostname=self.host, bind="0.0.0.0:0",
                store_addr=self._connected_to, world_size=1, heartbeat_interval=HEARTBEAT_INTERVAL,
                connect_timeout=_CONNECT_TIMEOUT, quorum_retries=0,
            ),
            deadline, f"the lighthouse at {lighthouse} was not reached",
        )  # fmt: skip
        self._client = coordination.ManagerClient(self._server.address(), connect_timeout=_CONNECT_TIMEOUT)

    def quorum(self, step: int, num_failures: int, limit_s: float) -> Quorum:
        """Ask for one quorum, synchronously: all take part who are there, also those that are behind.

        A failure raises the quorum's number, so that all make new links. Healing is no concern of torchft's here.
        """
        arguments = {
            "group_rank": 0, "step": step, "checkpoint_metadata": "", "shrink_only": False, "init_sync": False,
            "timeout": timedelta(seconds=limit_s), "commit_failures": num_failures,
        }  # fmt: skip
        try:
            found = _in_a_thread(lambda: self._client._quorum(**arguments))
        except (OSError, RuntimeError) as error:
            raise WorkerError(
                f"no quorum within {limit_s:.0f} s: the lighthouse does not answer, or waits for more participants "
                f"({type(error).__name__}: {str(error)[:200]})"
            ) from error
        return Quorum(found.quorum_id, found.replica_rank, tuple(found.replica_ids), found.store_address)

    def meet(self, quorum: Quorum, timeout: timedelta) -> StoreMeeting:
        """In the store of a participant that the lighthouse has chosen."""
        if self._connected_to != quorum.store or not _answers(self._place):
            # To connect may take seconds where a machine's name is not found, so a connection is kept.
            host, _, port = quorum.store.rpartition(":")
            try:
                self._place = dist.TCPStore(host, int(port), is_master=False, wait_for_workers=False, timeout=timeout)
            except RuntimeError as error:
                raise WorkerError(f"the participant at {quorum.store}, where all meet, is not reached") from error
            self._connected_to, self._last = quorum.store, None
        if self._last is not None:
            self._last.close()  # what is there yet of a meeting that has failed
        # A number comes again under another lighthouse, but not with the same lives of the same participants; what
        # these have left there themselves a meeting can tell from what is new.
        lives = hashlib.blake2b(" ".join(quorum.members).encode(), digest_size=8).hexdigest()
        place = dist.PrefixStore(f"thinwire/{quorum.number}/{lives}", self._place)
        self._last = StoreMeeting(place, quorum.rank, quorum.size, timeout)
        return self._last

    def close(self) -> None:
        """No more heartbeats: the lighthouse stops waiting for this process once they are missed."""
        self._server.shutdown()


def host_towards(lighthouse: str) -> str:
    """The address of this machine on the way to a lighthouse.

    Raises:
        ConfigError: this is no address, or no way leads there.

    Example:
        >>> host_towards("http://127.0.0.1:29510")
        '127.0.0.1'
    """
    parts = urlsplit(lighthouse)
    host = way_to(parts.hostname) if parts.scheme == "http" and parts.hostname else None
    if host is None:
        raise ConfigError(
            f"the lighthouse {lighthouse!r} was given; give the address that `torchft_lighthouse` was started with, "
            "such as http://host:29510, by lighthouse= or in TORCHFT_LIGHTHOUSE"
        )
    return host


def _answers(store: dist.Store) -> bool:
    try:
        store.check(["thinwire"])
    except RuntimeError:
        return False
    return True


def _patiently(make: Callable[[], T], deadline: float, what: str) -> T:
    """Try until it works, or until the deadline."""
    while True:
        try:
            return make()
        except (OSError, RuntimeError) as error:
            if time.monotonic() > deadline:
                raise WorkerError(f"{what} ({type(error).__name__}: {str(error)[:200]})") from error
        time.sleep(_RETRY_S)


def _in_a_thread(call: Callable[[], Any]) -> Any:
    """What a call returns that hears no signals while it waits: Ctrl-C ends the waiting, the thread ends by itself."""
    outcome: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="thinwire-quorum", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_S)
    with contextlib.suppress(IndexError):
        raise errors.pop()
    return outcome.pop()
