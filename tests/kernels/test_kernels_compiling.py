"""Kernels are compiled by one process while others wait, and also where nothing can be kept."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import thinwire
from thinwire.kernels import compiling
from thinwire.kernels.turns import Turn

if sys.platform == "win32":
    pytest.skip("there are no such locks", allow_module_level=True)

SOURCE = str(Path(thinwire.__file__).parents[1])
HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""
SUM = """
import numba.core.event, torch
listener = numba.core.event.RecordingListener()
numba.core.event.register("numba:compile", listener)
from thinwire.kernels.sums import segment_sums
print(segment_sums(torch.tensor([3.0, -4.0]), torch.tensor([0, 2]), 2).item())
print(sum(event.is_start for _, event in listener.buffer))
"""


def start(program: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": SOURCE, **environment},
    )  # fmt: skip


def test_one_process_compiles_and_says_so_while_the_others_wait(tmp_path: Path) -> None:
    processes = [start(SUM, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    told = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    counts = sorted(int(out.split()[1]) for out, _ in told)
    assert {out.split()[0] for out, _ in told} == {"25.0"}
    alone = start(SUM, NUMBA_CACHE_DIR=str(tmp_path / "other"))
    out, err = alone.communicate(timeout=240)
    # All that is compiled for this is compiled once by both together.
    assert sum(counts) == int(out.split()[1]) > 0
    assert "".join(err for _, err in told).count("compiling kernels for this machine") == 1
    again, silent = start(SUM, NUMBA_CACHE_DIR=str(tmp_path)).communicate(timeout=240)
    assert again == "25.0\n0\n"
    assert silent == ""
    assert "compiling kernels" in err or err == ""  # the processes above may have just said it


def test_where_nothing_can_be_kept_there_is_one_warning() -> None:
    """Numba finds no folder that it may write to; it then refuses to cache at all."""
    process = start("import thinwire\n" + SUM, NUMBA_CACHE_LOCATOR_CLASSES="IPythonCacheLocator")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out.startswith("25.0\n")
    assert err.count("UncachedKernels: kernels cannot be kept on disk") == 1
    assert "NUMBA_CACHE_DIR" in err


def test_a_full_disk_and_damaged_files_cost_only_time(tmp_path: Path) -> None:
    first, _ = start(SUM, NUMBA_CACHE_DIR=str(tmp_path)).communicate(timeout=240)
    for path in tmp_path.rglob("*.nbi"):
        path.write_bytes(b"")
    process = start(SUM, NUMBA_CACHE_DIR=str(tmp_path))
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out == first
    assert "damaged (EOFError" in err
    assert start(SUM, NUMBA_CACHE_DIR=str(tmp_path)).communicate(timeout=240)[0] == "25.0\n0\n"


class FullCache:
    """As Numba's, on a disk without room."""

    cache_path = "/nowhere"

    def load_overload(self, signature: Any, target: Any) -> None:
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        raise OSError(28, "No space left on device")


def test_a_kernel_that_cannot_be_saved_is_still_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_warned", [])
    turn = Turn(tmp_path / "lock")
    cache = compiling._SharedCache(FullCache(), turn)
    with pytest.warns(compiling.UncachedKernels, match="No space left on device"):
        cache.save_overload(None, None)
    cache.save_overload(None, None)  # it is said once


def held_by_another(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_turn_of_a_process_that_dies_passes_on(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "lock") as other:
        turn = Turn(tmp_path / "lock")
        taken = threading.Event()

        def wait() -> None:
            with turn:
                turn.take()
                assert turn.is_held
                taken.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not taken.wait(0.2)
        other.kill()
        waiting.join(30)
    assert taken.is_set()
    assert not turn.is_held


def test_a_turn_that_never_ends_is_not_waited_for_twice(tmp_path: Path) -> None:
    """A process may be stopped, and hold the lock for ever."""
    with held_by_another(tmp_path / "lock") as other:
        turn = Turn(tmp_path / "lock", wait_s=0.1)
        with turn:
            turn.take()
            assert not turn.is_held
        begun = time.monotonic()
        for _ in range(1000):
            with turn:
                turn.take()
        assert time.monotonic() - begun < 60  # a thousand waits would be 100 s
        other.kill()


def test_a_turn_lasts_until_the_outermost_call_ends_also_by_an_error(tmp_path: Path) -> None:
    turn, other = Turn(tmp_path / "lock"), Turn(tmp_path / "lock", wait_s=0.0)

    def interrupted() -> None:
        with turn:
            with turn:
                turn.take()
            assert turn.is_held
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not turn.is_held
    with other:
        other.take()
        assert other.is_held


def test_a_folder_without_locks_is_no_reason_to_fail(tmp_path: Path) -> None:
    turn = Turn(tmp_path / "missing" / "lock")
    with turn:
        turn.take()
        assert not turn.is_held


def test_processes_of_one_parent_speak_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [Turn(tmp_path / "lock") for _ in range(3)]
    for turn in turns:
        with turn:
            turn.take()
            turn.announce()
            turn.announce()
    shown = capsys.readouterr()
    assert shown.err == "thinwire: compiling kernels for this machine, which takes up to a minute; it is done once\n"
    assert shown.out == ""
    os.utime(tmp_path / "lock", (0, 0))  # long ago
    with Turn(tmp_path / "lock") as later:
        later.take()
        later.announce()
    assert capsys.readouterr().err.startswith("thinwire: compiling")


def test_a_kernel_takes_its_place_once_it_is_called() -> None:
    def function(x: int) -> int:
        return x + 1

    made = []
    deferred = compiling.Deferred(lambda: made.append(1) or function)  # type: ignore[func-returns-value]
    assert made == []
    assert (deferred(1), deferred(2), made) == (2, 3, [1])
