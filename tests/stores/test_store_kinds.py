"""What only one kind of store has, and what is said where there can be none."""

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from object_server import ObjectServer

from thinwire.errors import ConfigError, StoreError
from thinwire.plugins import import_package
from thinwire.stores import FolderStore, FsspecStore, Store, open_store


def test_folders_that_go_and_come_lose_nothing(tmp_path: Path) -> None:
    """Whoever deletes the last object of a folder removes it, while others write there."""
    store = FolderStore(tmp_path)

    def work(place: int) -> None:
        for number in range(150):
            store.put(f"deep/er/rank-{place}", b"x")
            store.create(f"deep/er/made-{place}", b"y")
            assert store.get(f"deep/er/rank-{place}", 1) == b"x", number
            assert store.names("deep/er")
            store.delete(f"deep/er/rank-{place}")
            store.delete(f"deep/er/made-{place}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert os.listdir(tmp_path) == []


def test_a_folder_shows_nothing_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    seen: list[object] = []
    real = os.fsync

    def look(opened: int) -> None:
        if stat.S_ISREG(os.fstat(opened).st_mode):
            seen.extend((store.get("a/b", 100), list(store.names(""))))
        real(opened)

    monkeypatch.setattr(os, "fsync", look)
    store.put("a/b", b"contents")
    assert seen == [None, []]
    assert store.get("a/b", 100) == b"contents"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    store.put("a", b"before")

    def full(opened: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"'a' cannot be read or written \(No space left on device\)"):
        store.put("a", b"after")
    with pytest.raises(StoreError, match="No space"):
        store.create("b", b"after")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["a"]
    assert store.get("a", 10) == b"before"


def test_a_lost_answer_of_a_link_is_known_by_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over NFS a link is made, the answer is lost, and the second try says that there is one."""
    real = os.link

    def link(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", link)
    assert FolderStore(tmp_path).create("closed", b"mine")


def test_an_object_is_no_folder(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("a", b"")
    with pytest.raises(StoreError, match="no object's name may be a folder"):
        store.put("a/b", b"")
    with pytest.raises(StoreError, match="'a/b' cannot be read"):
        store.get("a/b", 10)


def test_stores_from_addresses(tmp_path: Path) -> None:
    for address in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        open_store(address).put("a", b"1")
        assert (tmp_path / "a").read_bytes() == b"1"
        (tmp_path / "a").unlink()
    store: Store = FolderStore(tmp_path)
    assert open_store(store) is store
    with pytest.raises(ConfigError, match=r"3 \(int\) was given as a store"):
        open_store(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="options were given"):
        open_store(tmp_path, {"key": "x"})
    for url in ("s3://", "file:///tmp", "bucket/folder"):
        with pytest.raises(ConfigError, match="takes one such as 's3://"):
            FsspecStore(url)
    with pytest.raises(ConfigError, match=r"nosuch://here.*do not fit fsspec"):
        open_store("nosuch://here")


def test_secrets_are_not_shown() -> None:
    options = {"key": "nobody", "secret": "nothing"}
    assert repr(open_store("s3://bucket/folder", options)) == "FsspecStore('s3://bucket/folder')"


def test_where_create_is_not_one_request_it_is_refused() -> None:
    fsspec = import_package("fsspec", "the tests")
    memory = import_package("fsspec.implementations.memory", "the tests").MemoryFileSystem
    fsspec.register_implementation("asks-first", memory, clobber=True)
    store = FsspecStore("asks-first://bucket/run")
    store.put("a", b"1")
    assert store.get("a", 1) == b"1"
    with pytest.raises(StoreError, match="cannot write to asks-first:// only if there is nothing"):
        store.create("closed", b"")
    store.delete("a")


def test_a_place_that_ignores_the_condition_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As servers do that know S3's requests of before 2024."""
    store = FsspecStore("memory://ignorant/run")
    real = store._files.pipe_file
    monkeypatch.setattr(store._files, "pipe_file", lambda path, value, mode="overwrite": real(path, value))
    with pytest.raises(StoreError, match="writes over an object that is there"):
        store.create("closed", b"")
    assert store.names("") == []


def test_a_bucket_that_is_not_there(server: Callable[[], ObjectServer]) -> None:
    bucket = server().new_bucket()
    store = open_store("s3://no-such-bucket/run", bucket.options)
    for call in (lambda: store.get("a", 1), lambda: store.names(""), lambda: store.put("a", b"")):
        with pytest.raises(StoreError, match="see whether the place exists"):
            call()


def test_a_server_that_does_not_answer() -> None:
    options = {
        "key": "nobody", "secret": "nothing", "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }  # fmt: skip
    with pytest.raises(StoreError, match="'a' cannot be read or written"):
        open_store("s3://bucket/run", options).get("a", 1)
