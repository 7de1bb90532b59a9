"""Every store, for the laws that hold for all of them: a line in STORES, and a new one is in."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from object_server import ObjectServer

from thinwire.stores import Store, open_store
from thinwire.weights.serving import MemoryStore


@dataclass(frozen=True)
class StoreCase:
    """How a store is opened, here and in other processes; in memory it is this process's alone."""

    address: str
    options: dict[str, Any] | None = None
    is_shared: bool = True
    kept: Store | None = None
    """One that cannot be opened again."""

    def open(self) -> Store:
        return open_store(self.address if self.kept is None else self.kept, self.options)

    def to_text(self) -> str:
        return json.dumps([self.address, self.options])


def of_bucket(server: Callable[[], ObjectServer]) -> StoreCase:
    bucket = server().new_bucket()
    return StoreCase(bucket.url, bucket.options)


STORES: dict[str, Callable[[Path, Callable[[], ObjectServer]], StoreCase]] = {
    "folder": lambda path, server: StoreCase(str(path / "objects")),
    "file": lambda path, server: StoreCase(f"file://{path / 'objects'}"),
    "memory": lambda path, server: StoreCase(f"memory://{secrets.token_hex(6)}/runs", is_shared=False),
    "dict": lambda path, server: StoreCase("", is_shared=False, kept=MemoryStore()),
    "s3": lambda path, server: of_bucket(server),
}
"""By name; the server of buckets is started when it is first asked for."""
