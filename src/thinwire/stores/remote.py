"""Objects of a bucket, or of any other place that fsspec knows."""

import contextlib
import posixpath
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from thinwire.errors import ConfigError, StoreError, ThinwireError
from thinwire.plugins import import_package
from thinwire.stores.base import check_length, check_name

_CREATES = ("s3", "s3a", "gs", "gcs", "memory")
"""Where a write can be made to fail if there is an object, in one request; elsewhere fsspec asks first, then writes."""
_ALREADY_THERE = ("PreconditionFailed", "412")
_AT_ONCE = ("ConditionalRequestConflict", "409")
_MOST_TRIES = 10
_IN_MEMORY = threading.Lock()
"""fsspec's memory is this process's: check and write are two steps, and a listing fails if another thread writes."""


class FsspecStore:
    """A bucket or another place that fsspec reaches, as a store: ``s3://bucket/prefix``, ``gs://``, ``memory://``.

    Every request goes to the place: fsspec's caches of listings are not used. Before it creates the first object it
    makes sure, with one object that it writes twice and deletes, that the place keeps what is there.

    Args:
        url: of the folder below which the objects lie.
        options: of the file system, as fsspec has them: ``{"key": ..., "secret": ..., "endpoint_url": ...}``. None
            are needed where the environment has the credentials.

    Raises:
        ConfigError: no such file system, its package is not installed, or a folder, which is for
            :class:`thinwire.stores.FolderStore`.

    Example:
        >>> store = FsspecStore("memory://bucket/run-7")
        >>> store.create("rounds/1/closed", b"first"), store.create("rounds/1/closed", b"second")
        (True, False)
        >>> store.get("rounds/1/closed", 10), store.names("rounds")
        (b'first', ['rounds/1/closed'])
        >>> store.delete("rounds/1/closed")
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self._protocol, separator, path = url.partition("://")
        if not separator or not path.strip("/") or self._protocol in ("file", "local"):
            raise ConfigError(
                f"the address {url!r} was given; a FsspecStore takes one such as 's3://bucket/folder', and a folder of "
                "a machine is a FolderStore"
            )
        fsspec = import_package("fsspec", f"a store at {self._protocol}://", "thinwire[store]")
        kept = {"use_listings_cache": False, "skip_instance_cache": True}
        try:
            self._files = fsspec.filesystem(self._protocol, **{**(options or {}), **kept})
        except ImportError as error:
            raise ConfigError(
                f"a store at {self._protocol}:// needs a package that is not installed: {error}"
            ) from error
        except (ValueError, TypeError) as error:
            raise ConfigError(f"the address {url!r} and its options do not fit fsspec: {error}") from error
        self._url = url
        self._top = self._files._strip_protocol(url).rstrip("/")
        self._creates = False

    def __repr__(self) -> str:
        """The address, without the options, which may be secrets."""
        return f"FsspecStore({self._url!r})"

    def put(self, name: str, contents: bytes | memoryview) -> None:
        """One request to write."""
        path = self._path(name)
        with _told(name), self._alone():
            self._files.pipe_file(path, bytes(contents))

    def create(self, name: str, contents: bytes | memoryview) -> bool:
        """One request to write if there is nothing (``If-None-Match: *``).

        Raises:
            StoreError: the place does not answer, or cannot do this; see :class:`FsspecStore`.
        """
        path = self._path(name)
        if not self._creates:
            self._check_creates()
        return self._create(path, bytes(contents), name)

    def get(self, name: str, max_num_bytes: int) -> bytes | None:
        """One request to read, of a range that is one byte longer than allowed."""
        path = self._path(name)
        with _told(name), self._alone():
            try:
                contents: bytes = self._files.cat_file(path, start=0, end=max_num_bytes + 1)
            except FileNotFoundError as error:
                _raise_without_bucket(error)
                return None
            except OSError:
                if self._files.size(path) == 0:  # of nothing there is no range
                    return b""
                raise
        check_length(name, len(contents), max_num_bytes)
        return contents

    def names(self, under: str) -> Sequence[str]:
        """A request to list for each thousand objects below the name."""
        top = self._path(under) if under else self._top
        with _told(under), self._alone():
            try:
                found = self._files.find(top)
            except FileNotFoundError as error:
                _raise_without_bucket(error)
                found = []
        below = [path for path in found if path.startswith(top + "/")]  # the folder may be an object
        return sorted(posixpath.relpath(path, self._top) for path in below)

    def delete(self, name: str) -> None:
        """One request to delete."""
        path = self._path(name)
        with _told(name), self._alone(), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(path)

    def _alone(self) -> contextlib.AbstractContextManager[object]:
        """Other threads wait, where the place is this process's memory."""
        return _IN_MEMORY if self._protocol == "memory" else contextlib.nullcontext()

    def _path(self, name: str) -> str:
        return f"{self._top}/{check_name(name)}"

    def _check_creates(self) -> None:
        """A server that does not know the condition would write all the same, and two workers go different ways."""
        if self._protocol not in _CREATES:
            raise StoreError(
                f"fsspec cannot write to {self._protocol}:// only if there is nothing, which is needed where several "
                f"workers decide; use one of {', '.join(_CREATES)}, or a folder that all mount"
            )
        name = f"creates-{secrets.token_hex(8)}"
        path = self._path(name)
        try:
            is_kept = self._create(path, b"1", name) and not self._create(path, b"2", name)
        finally:
            self.delete(name)
        if not is_kept:
            raise StoreError(
                f"{self._url} writes over an object that is there although it was asked not to (If-None-Match: *); "
                "take a server that knows conditional writes, or a folder that all workers mount"
            )
        self._creates = True

    def _create(self, path: str, contents: bytes, name: str) -> bool:
        with _told(name):
            for left in reversed(range(_MOST_TRIES)):
                try:
                    with self._alone():
                        self._files.pipe_file(path, contents, mode="create")
                    return True
                except FileExistsError:
                    return False
                except OSError as error:
                    code = _code(error)
                    if code in _ALREADY_THERE:
                        return False
                    if code not in _AT_ONCE or not left:
                        raise
        raise AssertionError


def _raise_without_bucket(error: FileNotFoundError) -> None:
    if _code(error) == "NoSuchBucket":
        raise error


def _code(error: BaseException) -> str:
    """What the server called an error; empty if it is none of a server's."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except ThinwireError:
        raise
    except Exception as error:  # of whatever package reaches the place
        text = str(error).split("\n")[0]
        raise StoreError(
            f"the object {name!r} cannot be read or written ({type(error).__name__}: {text}); see whether the place "
            "exists, is reached and lets these credentials in"
        ) from error
