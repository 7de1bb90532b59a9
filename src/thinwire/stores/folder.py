"""Objects as files of a folder."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from thinwire.errors import StoreError
from thinwire.files import StrPath, sync_folder
from thinwire.stores.base import check_length, check_name

_PARTIAL = ".partial"
_MOST_TRIES = 100
"""How often a folder is made again that somebody else removes because it is empty."""


class FolderStore:
    """A folder of this machine, or one that several machines mount, as a store; it is made when it is first written to.

    Args:
        folder: where the objects lie, each a file of its name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = FolderStore(folder)
        ...     store.create("rounds/1/closed", b"first"), store.create("rounds/1/closed", b"second")
        ...     store.get("rounds/1/closed", 10), store.names("rounds")
        (True, False)
        (b'first', ['rounds/1/closed'])
    """

    def __init__(self, folder: StrPath) -> None:
        self._folder = Path(folder)

    def __repr__(self) -> str:
        """The folder."""
        return f"FolderStore({os.fspath(self._folder)!r})"

    def put(self, name: str, contents: bytes | memoryview) -> None:
        """Write a file beside its place and rename it."""
        target = self._folder / check_name(name)
        with _told(name):
            os.replace(self._write_beside(target, contents), target)
            _sync(target.parent)

    def create(self, name: str, contents: bytes | memoryview) -> bool:
        """Write a file beside its place and link it there, which fails if there is one."""
        target = self._folder / check_name(name)
        with _told(name):
            partial = self._write_beside(target, contents)
            try:
                os.link(partial, target)
            except FileExistsError:
                # Over a network the answer to the first try may be lost, and the second finds its work done.
                return os.stat(partial).st_nlink > 1
            finally:
                partial.unlink()
            _sync(target.parent)
        return True

    def get(self, name: str, max_num_bytes: int) -> bytes | None:
        """Read a file."""
        with _told(name):
            try:
                with open(self._folder / check_name(name), "rb") as file:
                    check_length(name, os.fstat(file.fileno()).st_size, max_num_bytes)
                    return file.read()  # nobody changes it: what replaces it is another file
            except FileNotFoundError:
                return None

    def names(self, under: str) -> Sequence[str]:
        """Files of the folder and the folders in it, but for those that are being written."""
        top = self._folder / check_name(under) if under else self._folder
        with _told(under):
            walked = list(os.walk(top, onerror=_raise_unless_gone))
        found = [Path(parent, name) for parent, _, names in walked for name in names if not name.startswith(".")]
        return sorted(path.relative_to(self._folder).as_posix() for path in found)

    def delete(self, name: str) -> None:
        """Remove a file, and the folders that are empty without it."""
        path = self._folder / check_name(name)
        with _told(name):
            path.unlink(missing_ok=True)
            for parent in path.parents:
                if parent == self._folder:
                    break
                try:
                    parent.rmdir()
                except OSError:  # something else is in it
                    break

    def _write_beside(self, target: Path, contents: bytes | memoryview) -> Path:
        """A file of its own, for several may write to one place at once; on the disk when this returns."""
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}{_PARTIAL}")
        opened = self._open_new(partial)
        try:
            with open(opened, "wb") as file:
                file.write(contents)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):  # what is to be told is why it failed
                partial.unlink()
            raise
        return partial

    def _open_new(self, path: Path) -> int:
        """A new file; once it is there its folder is not empty, so that nobody removes it."""
        for left in reversed(range(_MOST_TRIES)):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            except (FileNotFoundError, FileExistsError):  # both, where a folder goes while it is made
                if not left:
                    raise
        raise AssertionError


def _sync(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # the object was deleted, and the folder with it
        sync_folder(folder)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the object {name!r} cannot be read or written ({error.strerror or error}); the folder must be writable, "
            "with room, on a file system that has hard links, and no object's name may be a folder of another's"
        ) from error
