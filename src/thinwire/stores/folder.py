"""Objects as files of a folder."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from thinwire.errors import StoreError
from thinwire.files import StrPath, sync_folder, write_atomically
from thinwire.stores.base import check_name

_PARTIAL = ".partial"


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

    def put(self, name: str, contents: bytes | memoryview) -> None:
        """Write a file beside its place and rename it."""
        with _told(name):
            write_atomically(self._folder / check_name(name), contents)

    def create(self, name: str, contents: bytes | memoryview) -> bool:
        """Write a file beside its place and link it there, which fails if there is one."""
        target = self._folder / check_name(name)
        # Several may write at once, so each has a file of its own.
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}{_PARTIAL}")
        with _told(name):
            write_atomically(partial, contents)
            try:
                os.link(partial, target)
            except FileExistsError:
                return False
            finally:
                partial.unlink()
            sync_folder(target.parent)
        return True

    def get(self, name: str, max_num_bytes: int) -> bytes | None:
        """Read a file."""
        with _told(name):
            try:
                with open(self._folder / check_name(name), "rb") as file:
                    contents = file.read(max_num_bytes + 1)
            except FileNotFoundError:
                return None
        if len(contents) > max_num_bytes:
            raise StoreError(f"the object {name!r} is longer than the {max_num_bytes} bytes that were expected")
        return contents

    def names(self, under: str) -> Sequence[str]:
        """Files of the folder and the folders in it, but for those that are being written."""
        top = self._folder / check_name(under) if under else self._folder
        with _told(under):
            found = [path for path in top.rglob("*") if path.is_file()]
        names = [path.relative_to(self._folder).as_posix() for path in found]
        return sorted(name for name in names if not name.endswith(_PARTIAL) and not Path(name).name.startswith("."))

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


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"the object {name!r} cannot be read or written ({error.strerror or error})") from error
