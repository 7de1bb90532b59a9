"""Files that are there in full or not at all, and folders that one writer at a time has."""

import contextlib
import functools
import os
import socket
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeAlias

from thinwire.errors import ConfigError

StrPath: TypeAlias = str | os.PathLike[str]
"""What every function and every class here takes for a path."""

_LOCK = ".thinwire.lock"


def write_beside(path: StrPath, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is there in full or not at all, also after a loss of power.

    It is written beside its place and then renamed. Folders that are not there are made; what was written before a
    failure is removed.

    Args:
        path: the file.
        write: is called with the file to write to.

    Raises:
        ConfigError: it cannot be written.
    """
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        except BaseException:
            with contextlib.suppress(OSError):  # what is to be told is why it failed
                partial.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise not_writable(target, error) from error


def write_atomically(path: StrPath, contents: bytes | memoryview) -> None:
    """:func:`write_beside` with the whole contents at hand.

    Raises:
        ConfigError: the file cannot be written.
    """
    write_beside(path, lambda file: file.write(contents))


def append_text(path: StrPath, text: str) -> None:
    """Append to a file, which is made if it is not there: all of the text, or nothing of it.

    Raises:
        ConfigError: the file cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                left = memoryview(text.encode())
                while left:
                    left = left[file.write(left) :]
            except OSError:
                with contextlib.suppress(OSError):  # a device has no length
                    file.truncate(before)
                raise
    except OSError as error:
        raise not_writable(target, error) from error


def not_writable(path: StrPath, error: Exception) -> ConfigError:
    """What is raised where the system refuses to write."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).split("\n")[0]
    return ConfigError(f"{os.fspath(path)} cannot be written ({reason}); make room there, or give another place")


def sync_folder(folder: StrPath) -> None:
    """See to it that what was made, renamed or removed in a folder survives a loss of power."""
    # Where folders cannot be opened (Windows) there is nothing to be made sure of in this way.
    with contextlib.suppress(PermissionError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


class FolderLock:
    """Says that a folder is written to: by one holder at a time, in this process or another, on this host or another.

    The system ends it with the process, however that ends. Reading needs no lock.

    Args:
        folder: has the file ``.thinwire.lock`` once the lock was taken.
    """

    def __init__(self, folder: StrPath) -> None:
        self._path = Path(folder) / _LOCK
        self._close: weakref.finalize[[int], FolderLock] | None = None

    def acquire(self) -> str:
        """Take the lock, unless it is held already; the folder is made if it is not there.

        Returns:
            Who else holds it, in words; nothing if it is ours now.

        Raises:
            ConfigError: the folder cannot be written.

        Warns:
            UserWarning: the file system knows no locks, so that nobody is kept out.
        """
        if self._close is not None:
            return ""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            opened = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise not_writable(self._path.parent, error) from error
        close = weakref.finalize(self, os.close, opened)
        try:
            is_ours = _lock(opened)
        except OSError as error:
            is_ours = True
            warnings.warn(
                f"{self._path.parent} is on a file system without locks ({error.strerror}); see to it that nobody else "
                "writes to it meanwhile",
                stacklevel=2,
            )
        if not is_ours:
            holder = os.read(opened, 200).decode(errors="replace")
            close()
            return holder or "another process"
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only its holder has no name
            os.ftruncate(opened, 0)
            os.write(opened, f"process {os.getpid()} on {socket.gethostname()}".encode())
        self._close = close
        _held.add(self)
        _watch_forks()
        return ""

    def holder(self) -> str:
        """Who else holds the lock, in words, if somebody does; nothing is made."""
        if self._close is not None or not self._path.exists():
            return ""
        found = self.acquire()
        self.release()
        return found

    def release(self) -> None:
        """Let go; nothing if it is not held."""
        if self._close is not None:
            self._close()
            self._close = None


_held: "weakref.WeakSet[FolderLock]" = weakref.WeakSet()


@functools.cache
def _watch_forks() -> None:
    """A copy of the process (a loader's worker) must not hold what its original holds, which it may outlive."""
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    for lock in list(_held):
        lock.release()


if sys.platform == "win32":
    import msvcrt

    def _lock(opened: int) -> bool:
        """Whether the lock is ours now; what is locked is a byte that nobody writes."""
        os.lseek(opened, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(opened, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(opened, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(opened: int) -> bool:
        """Whether the lock is ours now."""
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
