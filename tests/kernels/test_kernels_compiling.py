"""Kernels are compiled by one process while others wait, and also where nothing can be kept."""

import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numba.core import caching, config

import thinwire
from thinwire.kernels.jit import compiling
from thinwire.kernels.jit.turns import Notice, Turn

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
MODULE = """
from thinwire.kernels.jit.compiling import kernel


@kernel
def add_one(x):
    return x + 1


@kernel
def add_two(x):
    return add_one(add_one(x))
"""
PROGRAM = """
import numba.core.event

listener = numba.core.event.RecordingListener()
numba.core.event.register("numba:compile", listener)
from small_kernels import add_two

print(add_two(3), sum(event.is_start for _, event in listener.buffer))
"""


class Kernels:
    """A module with two kernels, and a folder in which they are kept."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "small_kernels.py"
        self.path.write_text(MODULE)
        self.kept = folder / "kept"
        monkeypatch.setattr(config, "CACHE_DIR", str(self.kept))
        monkeypatch.setattr(compiling, "_warned", [])

    def fresh(self) -> Any:
        """The module as another process would import it."""
        spec = importlib.util.spec_from_file_location("small_kernels", self.path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernels:
    monkeypatch.setattr(compiling, "_notices", [])
    return Kernels(tmp_path, monkeypatch)


def misses(module: Any) -> int:
    return sum(sum(each.stats.cache_misses.values()) for each in (module.add_one, module.add_two))


def test_one_process_compiles_and_says_so_while_the_others_wait(tmp_path: Path) -> None:
    (tmp_path / "small_kernels.py").write_text(MODULE)
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join((SOURCE, str(tmp_path))), "NUMBA_CACHE_DIR": str(tmp_path / "kept"),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    # Both kernels are compiled once, by the one or by the other.
    assert sum(int(out.split()[1]) for out, _ in told) == 2
    assert "".join(err for _, err in told).count("compiling kernels for this machine") == 1


def test_kernels_take_their_places_when_they_are_called_and_are_kept(kernels: Kernels) -> None:
    module = kernels.fresh()
    is_deferred = [isinstance(module.add_one, compiling.Deferred)]
    assert module.add_two(3) == 5
    is_deferred.append(isinstance(module.add_one, compiling.Deferred))
    assert is_deferred == [True, False]
    assert misses(module) == 2
    again = kernels.fresh()
    assert again.add_two(3) == 5
    assert misses(again) == 0


def test_where_nothing_can_be_kept_there_is_one_warning(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba finds no folder that it may write to; it then refuses to cache at all."""
    monkeypatch.setattr(config, "CACHE_LOCATOR_CLASSES", "IPythonCacheLocator")
    module = kernels.fresh()
    with pytest.warns(compiling.UncachedKernels, match="kernels cannot be kept on disk.*NUMBA_CACHE_DIR") as caught:
        assert module.add_two(3) == 5
    assert len(caught) == 1
    assert not kernels.kept.exists()


def test_damaged_files_are_written_anew(kernels: Kernels) -> None:
    assert kernels.fresh().add_two(3) == 5
    for path in kernels.kept.rglob("*.nbi"):
        path.write_bytes(b"")
    module = kernels.fresh()
    with pytest.warns(compiling.UncachedKernels, match=r"are damaged \(EOFError"):
        assert module.add_two(3) == 5
    assert misses(module) == 2
    again = kernels.fresh()
    assert again.add_two(3) == 5
    assert misses(again) == 0


def test_a_kernel_that_cannot_be_saved_is_still_compiled(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk."""

    def full(cache: Any, signature: Any, compiled: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.FunctionCache, "save_overload", full)
    module = kernels.fresh()
    with pytest.warns(compiling.UncachedKernels, match="No space left on device") as caught:
        assert module.add_two(3) == 5
    assert len(caught) == 1


def held_by_another(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_turn_of_a_process_that_dies_passes_on(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "lock") as other:
        turn = Turn(tmp_path / "lock", Notice(tmp_path / "said"))
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
        turn = Turn(tmp_path / "lock", Notice(tmp_path / "said"), wait_s=0.1)
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
    turn, other = (
        Turn(tmp_path / "lock", Notice(tmp_path / "said")),
        Turn(tmp_path / "lock", Notice(tmp_path / "said"), wait_s=0.0),
    )

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
    turn = Turn(tmp_path / "missing" / "lock", Notice(tmp_path / "said"))
    with turn:
        turn.take()
        assert not turn.is_held


def test_processes_of_one_parent_speak_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for notice in [Notice(tmp_path / "said") for _ in range(3)]:
        notice.compiles()
        notice.compiles()
    shown = capsys.readouterr()
    assert shown.err == "thinwire: compiling kernels for this machine, which takes up to a minute; it is done once\n"
    assert shown.out == ""
    os.utime(tmp_path / "said", (0, 0))  # long ago
    Notice(tmp_path / "said").compiles()
    assert capsys.readouterr().err.startswith("thinwire: compiling")


def test_two_processes_compile_two_kernels_at_a_time(tmp_path: Path) -> None:
    """A process that compiles one keeps nobody from another one."""
    with held_by_another(tmp_path / "one") as other:
        turn = Turn(tmp_path / "other", Notice(tmp_path / "said"), wait_s=0.0)
        with turn:
            turn.take()
            assert turn.is_held
        other.kill()


def test_a_kernel_takes_its_place_once_it_is_called() -> None:
    def function(x: int) -> int:
        return x + 1

    def make() -> Callable[[int], int]:
        made.append(1)
        return function

    made: list[int] = []
    deferred = compiling.Deferred(make)
    assert made == []
    assert (deferred(1), deferred(2), made) == (2, 3, [1])
