"""A store from what a user types."""

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.stores.base import Store
from thinwire.stores.folder import FolderStore
from thinwire.stores.remote import FsspecStore

Address: TypeAlias = Store | StrPath
"""A store, or where it is: a folder, or an address such as ``s3://bucket/folder``."""


def open_store(address: Address, options: Mapping[str, Any] | None = None) -> Store:
    """The store at a place: a folder's, a bucket's, or the one that was given.

    Args:
        address: a path, ``file:///path``, an address that fsspec knows such as ``s3://bucket/folder``, or a store.
        options: of the file system that fsspec has for the address.

    Raises:
        ConfigError: see :class:`thinwire.stores.FsspecStore`; or options for what takes none.

    Example:
        >>> open_store("runs/shared"), open_store("memory://bucket/run-7")
        (FolderStore('runs/shared'), FsspecStore('memory://bucket/run-7'))
    """
    is_url = isinstance(address, str) and "://" in address and not address.startswith("file://")
    if options and not is_url:
        raise ConfigError(f"options were given for {address!r}; only addresses such as 's3://bucket/folder' take any")
    if is_url:
        assert isinstance(address, str)
        return FsspecStore(address, options)
    if isinstance(address, str | os.PathLike):
        return FolderStore(os.fspath(address).removeprefix("file://"))
    if isinstance(address, Store):
        return address
    raise ConfigError(
        f"{address!r} ({type(address).__name__}) was given as a store; give a folder, an address such as "
        "'s3://bucket/folder', or an object with put, create, get, names and delete"
    )
