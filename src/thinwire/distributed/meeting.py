"""Where processes hand each other the short texts that introduce them: a process group, or a store that all reach."""

import contextlib
import hashlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist

from thinwire.arrays import CPU, array_of
from thinwire.errors import ConfigError, ProtocolError, WorkerError

DEFAULT_TIMEOUT = timedelta(minutes=30)
"""Where a backend does not say what its own is; torch's default on the CPU."""

_FIRST_PAUSE_S, _PAUSE_S = 0.001, 0.05
"""Between two looks into the store, at first and later: its own way to wait complains on the standard error."""


class Meeting(Protocol):
    """Processes that can gather texts; each of them, and no other, does so at the same points of its program."""

    @property
    def rank(self) -> int:
        """This process, 0 to ``size - 1``."""
        ...

    @property
    def size(self) -> int:
        """Number of processes."""
        ...

    @property
    def timeout(self) -> timedelta:
        """How long they wait for each other unless something else is asked for."""
        ...

    def gather(self, text: bytes) -> list[bytes]:
        """Every process's text, in rank order; all give texts of one length.

        Raises:
            WorkerError: one of them does not come.
        """
        ...


@dataclass(frozen=True, slots=True)
class GroupMeeting:
    """The processes of a group of torch.distributed, of any backend that can all-gather.

    Args:
        group: to which this process belongs.
        device: where the model lies.
    """

    group: dist.ProcessGroup
    device: torch.device = CPU

    @property
    def rank(self) -> int:
        """This process."""
        return int(dist.get_rank(self.group))

    @property
    def size(self) -> int:
        """Number of processes."""
        return int(dist.get_world_size(self.group))

    @property
    def timeout(self) -> timedelta:
        """How long the group itself waits, as far as its backend says."""
        try:
            backend: Any = self.group._get_backend(group_device(self.group, self.device))
            return timedelta(seconds=backend.options._timeout.total_seconds())
        except (AttributeError, RuntimeError):
            return DEFAULT_TIMEOUT

    def gather(self, text: bytes) -> list[bytes]:
        """One all-gather, on the device that the backend wants."""
        mine = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(group_device(self.group, self.device))
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(everyone, mine, group=self.group)
        return [array_of(each).tobytes() for each in everyone]


def meeting_of(group: dist.ProcessGroup | None, device: torch.device = CPU) -> Meeting:
    """The meeting of a group, or of all processes.

    Raises:
        ConfigError: torch.distributed is not initialised.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise ConfigError(
            "torch.distributed is not initialised; start the script with torchrun and call "
            "torch.distributed.init_process_group() first"
        )
    whole = group if group is not None else dist.group.WORLD
    assert whole is not None
    return GroupMeeting(whole, device)


def group_device(group: dist.ProcessGroup, device: torch.device = CPU) -> torch.device:
    """Where the group's backend wants tensors: on the CPU if it takes them there, else on this process's accelerator.

    Args:
        group: the processes.
        device: where the model lies.
    """
    return CPU if "cpu" in _kinds(group) or not torch.cuda.is_available() else accelerator(group, device)


def dense_device(group: dist.ProcessGroup, device: torch.device) -> torch.device:
    """Where DDP would reduce gradients that lie on ``device``: there, if the group has a backend for it."""
    return device if device.type in _kinds(group) else group_device(group, device)


def _kinds(group: dist.ProcessGroup) -> list[str]:
    return [part.partition(":")[0] for part in dist.get_backend_config(group).split(",")]


def accelerator(group: dist.ProcessGroup, device: torch.device) -> torch.device:
    """The CUDA device of this process: the model's, the one that the group is bound to, or the current one.

    A script that calls no ``torch.cuda.set_device`` has device 0 as the current one on every process of a machine.
    """
    if device.type == "cuda":
        return device
    bound: torch.device | None = group.bound_device_id
    return bound or torch.device("cuda", torch.cuda.current_device())


@dataclass(slots=True)
class StoreMeeting:
    """Processes that were given ranks, and reach one store; an attempt to meet that failed does no harm to a later one.

    A store may still hold what an earlier attempt of the same name left. So each process first writes a random number,
    and all that follows has a name made of everybody's numbers.

    Args:
        store: of torch.distributed; under a prefix that processes of other meetings do not use.
        rank: this process, 0 to ``size - 1``.
        size: number of processes.
        timeout: how long to wait for the others.
    """

    store: dist.Store
    rank: int
    size: int
    timeout: timedelta
    _numbers: list[str] = field(init=False, default_factory=list)
    _written: list[str] = field(init=False, default_factory=list)
    _num_gathered: int = field(init=False, default=0)

    def gather(self, text: bytes) -> list[bytes]:
        """What all have written.

        Raises:
            WorkerError: one of them does not come within the timeout, or has withdrawn; or the store does not answer.
            ProtocolError: what one of them has written is no text of this length.
        """
        deadline = time.monotonic() + self.timeout.total_seconds()
        with _failing("the store by which the processes meet does not answer"):
            if not self._num_gathered:
                self._write(f"number/{self.rank}", secrets.token_hex(8))
            pause_s = _FIRST_PAUSE_S
            while not self._try_to_gather(text, deadline):
                if time.monotonic() > deadline:
                    raise WorkerError(self._missing())
                time.sleep(pause_s)
                pause_s = min(1.5 * pause_s, _PAUSE_S)
            found = self._read(self._names(), deadline)
        self._num_gathered += 1
        return [_opened(each, rank, len(text)) for rank, each in enumerate(found)]

    def withdraw(self) -> None:
        """The meeting has failed here: those that still wait for this process hear of it at once."""
        with contextlib.suppress(RuntimeError):
            for name in self._written:
                self.store.set(name, "")

    def close(self) -> None:
        """Take away what this process has written, once all have read it, or have had the time to."""
        with contextlib.suppress(RuntimeError):  # its process has ended, and with it all that it kept
            for name in self._written:
                self.store.delete_key(name)
        self._written = []

    def _try_to_gather(self, text: bytes, deadline: float) -> bool:
        """Write the text under the name that follows from the numbers there now; whether all have done so."""
        places = [f"number/{rank}" for rank in range(self.size)]
        if not self._num_gathered:
            if not self.store.check(places):
                return False
            # Others than a moment ago, if some were of an attempt before this one.
            self._numbers = [each.decode() for each in self._read(places, deadline)]
            if not all(self._numbers):
                raise _given_up(self._numbers.index(""))
        own = self._names()[self.rank]
        if own not in self._written:
            self._write(own, text.hex())
        return bool(self.store.check(self._names()))

    def _read(self, names: list[str], deadline: float) -> list[bytes]:
        """Texts that were there a moment ago. The store waits for one that was taken away since, until the deadline."""
        self.store.set_timeout(timedelta(seconds=max(deadline - time.monotonic(), _PAUSE_S)))
        found: list[bytes] = self.store.multi_get(names)
        return found

    def _names(self) -> list[str]:
        name = hashlib.blake2b(" ".join(self._numbers).encode(), digest_size=16).hexdigest()
        return [f"{name}/{self._num_gathered}/{rank}" for rank in range(self.size)]

    def _write(self, name: str, text: str) -> None:
        self._written.append(name)
        self.store.set(name, text)

    def _missing(self) -> str:
        come = [rank for rank in range(self.size) if self.store.check([f"number/{rank}"])]
        late = [str(rank) for rank in range(self.size) if rank not in come]
        return (
            f"worker {', '.join(late) or 'another'} did not come to meet the others within "
            f"{self.timeout.total_seconds():.0f} s: its process has ended, or does not reach the store"
        )


def _opened(written: bytes, rank: int, num_bytes: int) -> bytes:
    if not written:
        raise _given_up(rank)
    try:
        found = bytes.fromhex(written.decode("ascii"))
    except ValueError:
        found = b""
    if len(found) != num_bytes:
        raise ProtocolError(
            f"worker {rank} has written {written[:40]!r} ({len(written)} bytes) where {num_bytes} bytes in hexadecimal "
            "digits are expected; all must run one version of thinwire, and nobody else may write to the store"
        )
    return found


def _given_up(rank: int) -> WorkerError:
    return WorkerError(f"worker {rank} was there and has given up before all had met")


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    """Let the store's errors be ours."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, WorkerError):
            raise
        raise WorkerError(f"{what} ({str(error).splitlines()[0]})") from error
