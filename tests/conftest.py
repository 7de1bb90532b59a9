"""What every suite shares: threads that wait asleep, an order in which kernels are compiled once, a group of one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Torch's threads otherwise spin while they wait for more work, on cores that other test processes need. It counts
# when torch is loaded, which no plugin does; the processes that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

FIRST = ("devices", "kernels", "payloads", "wire", "compressors", "memory", "exchanges", "methods")
"""Folders in the order of the package's floors: what they compile is on disk when the others need it, where one test
may start eight processes. What runs apart begins first: it is one long file for whoever shares tests out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {folder: place for place, folder in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.parent.name, len(places)))


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process."""
    from torch import distributed as dist

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
