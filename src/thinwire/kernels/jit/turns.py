"""One process compiles a kernel while the others of the machine that need it wait."""

import os
import sys
import time
from pathlib import Path

from thinwire.files import StrPath

if sys.platform != "win32":
    import fcntl

_POLL_S = 0.05
_QUIET_S = 60.0
"""Processes of one parent say only once in so many seconds that they compile."""
_PATIENCE_S = 2.0
"""A wait that is shorter is not worth a word."""


class Notice:
    """Says on standard error that kernels are compiled, or waited for: once, and not if a process beside this one did.

    Args:
        path: a file in which processes note that they have spoken.
    """

    def __init__(self, path: StrPath) -> None:
        self._path = Path(path)
        self._has_spoken = False

    def compiles(self) -> None:
        """Kernels are compiled here."""
        self._say(
            "thinwire: compiling kernels for this machine, which takes up to a minute; it is done once", notes=True
        )

    def waits(self) -> None:
        """Another process compiles what is needed here."""
        self._say("thinwire: waiting for another process that compiles kernels", notes=False)

    def _say(self, text: str, *, notes: bool) -> None:
        if not self._has_spoken and not self._is_said(notes):
            print(text, file=sys.stderr, flush=True)
        self._has_spoken = True

    def _is_said(self, notes: bool) -> bool:
        """Whether a process with the same parent has spoken; if not, and this one ``notes`` it, it is the one."""
        own = str(os.getppid()).encode()
        try:
            is_new = self._path.exists() and time.time() - self._path.stat().st_mtime < _QUIET_S
            if is_new and self._path.read_bytes() == own:
                return True
            if notes:
                self._path.write_bytes(own)
        except OSError:
            return False
        return False


class Turn:
    """Whose turn it is to compile a kernel, among the processes that keep it in one folder.

    The turn is a lock on a file, which the system takes back from a process that ends, however it ends. No result
    depends on it: where there are no such locks, or a process that was stopped holds one for long, each compiles for
    itself. Only one thread may use it at a time. Who has a kernel's turn may wait for that of one that it calls, and no
    kernel calls itself, so that none waits for ever.

    Args:
        path: the file, next to what is kept.
        notice: says what goes on; one for all kernels.
        wait_s: after so many seconds this process no longer waits for others.
    """

    def __init__(self, path: StrPath, notice: Notice, wait_s: float = 120.0) -> None:
        self._path = Path(path)
        self._wait_s = wait_s
        self._notice = notice
        self._depth = 0
        self._file: int | None = None
        self._queues = True

    def __enter__(self) -> "Turn":
        self._depth += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._file is not None:
            file, self._file = self._file, None
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile has the file too
            os.close(file)

    @property
    def is_held(self) -> bool:
        """Whether it is this process's turn, and others wait for it."""
        return self._file is not None

    def take(self) -> None:
        """Wait until it is this process's turn; it ends with the outermost ``with``."""
        if self._file is not None or not self._queues:
            return
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            self._queues = False
            return
        try:
            if self._wait(file):
                self._file = file
        finally:
            if self._file is None:
                os.close(file)

    def _wait(self, file: int) -> bool:
        """Whether it has the lock now."""
        begun = time.monotonic()
        while not self._lock(file):
            waited = time.monotonic() - begun
            if waited > self._wait_s or not self._queues:
                self._queues = False
                return False
            if waited > _PATIENCE_S:
                self._notice.waits()
            time.sleep(_POLL_S)
        return True

    def _lock(self, file: int) -> bool:
        if sys.platform == "win32":
            self._queues = False
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # this file system has no locks
            self._queues = False
            return False
        return True
