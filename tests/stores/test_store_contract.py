"""Laws of every store."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest
from store_cases import StoreCase

from thinwire.errors import ConfigError, StoreError
from thinwire.stores import Store, check_name

BAD_NAMES = ("", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", ".hidden", "-a", "a b", "a\n", "a\\b", "ä", "a:b")


def test_what_is_put_is_there(case: StoreCase) -> None:
    store = case.open()
    assert isinstance(store, Store)
    for contents in (b"", b"\0", bytes(range(256)) * 300, memoryview(b"a view")):
        store.put("rounds/000012/rank-3", contents)
        assert case.open().get("rounds/000012/rank-3", 1 << 20) == bytes(contents)
    assert store.get("rounds/000012/rank-4", 100) is None


def test_create_writes_nothing_over(case: StoreCase) -> None:
    store = case.open()
    assert store.create("closed", b"first")
    assert not store.create("closed", b"second")
    assert case.open().get("closed", 100) == b"first"
    store.put("closed", b"third")
    assert not store.create("closed", b"fourth")
    store.delete("closed")
    assert store.create("closed", b"fifth")
    assert store.get("closed", 100) == b"fifth"


def test_of_many_threads_one_creates(case: StoreCase) -> None:
    stores = [case.open() for _ in range(6)]
    barrier = Barrier(len(stores))

    def create(place: int, number: int) -> bool:
        barrier.wait()
        return stores[place].create(f"closed/{number}", str(place).encode())

    with ThreadPoolExecutor(len(stores)) as threads:
        for number in range(8):
            done = list(threads.map(create, range(len(stores)), [number] * len(stores)))
            assert done.count(True) == 1
            assert stores[0].get(f"closed/{number}", 100) == str(done.index(True)).encode()


def test_of_many_processes_one_creates(case: StoreCase) -> None:
    if not case.is_shared:
        pytest.skip("it is this process's alone")
    command = [sys.executable, str(Path(__file__).with_name("creating_process.py")), case.to_text()]
    processes = [
        subprocess.Popen([*command, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for place in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for number in range(8):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"closed/{number}\n")
                process.stdin.flush()
            done = [process.stdout.readline() for process in processes if process.stdout]
            assert done.count("1\n") == 1
            assert case.open().get(f"closed/{number}", 100) == str(done.index("1\n")).encode()
    finally:
        for process in processes:
            process.communicate()


def test_a_longer_object_than_allowed_is_refused(case: StoreCase) -> None:
    store = case.open()
    store.put("long", bytes(1001))
    assert store.get("long", 1001) == bytes(1001)
    with pytest.raises(StoreError, match="'long' is longer than the 1000 bytes"):
        store.get("long", 1000)
    with pytest.raises(StoreError, match="longer than the 0 bytes"):
        store.get("long", 0)


def test_names_of_a_folder(case: StoreCase) -> None:
    store = case.open()
    assert store.names("") == []
    assert store.names("rounds/2") == []
    for name in ("rounds/2/rank-1", "rounds/10/rank-0", "rounds/2/rank-0", "rounds/22/rank-0", "snapshots/2", "rank-0"):
        store.put(name, b"")
    store.create("rounds/2/closed", b"")
    other = case.open()
    assert other.names("rounds/2") == ["rounds/2/closed", "rounds/2/rank-0", "rounds/2/rank-1"]
    assert other.names("rounds/2/rank-0") == []
    assert other.names("round") == []
    assert len(other.names("rounds")) == 5
    assert other.names("")[:2] == ["rank-0", "rounds/10/rank-0"]
    assert len(other.names("")) == 7
    store.put("rounds/2/rank-2", b"")
    assert other.names("rounds/2")[-1] == "rounds/2/rank-2", "a listing is not that of before"


def test_delete_may_be_repeated(case: StoreCase) -> None:
    store = case.open()
    store.delete("never/was")
    store.put("a/b/c", b"1")
    store.put("a/d", b"1")
    for _ in range(2):
        store.delete("a/b/c")
    assert store.names("") == ["a/d"]
    assert store.get("a/b/c", 10) is None


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused(name: str, case: StoreCase) -> None:
    store = case.open()
    with pytest.raises(ConfigError, match="object name"):
        check_name(name)
    for call in (lambda: store.put(name, b""), lambda: store.create(name, b""), lambda: store.get(name, 1)):
        with pytest.raises(ConfigError, match="object name"):
            call()
    with pytest.raises(ConfigError, match="object name"):
        store.delete(name)
    if name:
        with pytest.raises(ConfigError, match="object name"):
            store.names(name)


def test_an_object_is_seen_in_full_or_not_at_all(case: StoreCase) -> None:
    """Two write to one name and to a folder that goes and comes, while another reads."""
    stores, ends = [case.open() for _ in range(3)], Event()
    contents = [bytes([value]) * 60_000 for value in (1, 2)]

    def write(place: int) -> None:
        for _ in range(30):
            stores[place].put("busy/one", contents[place])
            stores[place].put(f"gone/{place}/one", contents[place])
            stores[place].delete(f"gone/{place}/one")

    def read() -> int:
        count, is_last = 0, False
        while not is_last:
            is_last = ends.is_set()
            found = stores[2].get("busy/one", 1 << 20)
            assert found is None or found in contents
            assert set(stores[2].names("busy")) <= {"busy/one"}
            count += found is not None
        return count

    with ThreadPoolExecutor(3) as threads:
        reading = threads.submit(read)
        try:
            for written in [threads.submit(write, place) for place in range(2)]:
                written.result()
        finally:
            ends.set()
        assert reading.result() > 0
    assert stores[2].names("") == ["busy/one"]
