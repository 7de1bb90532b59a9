"""Files are there in full or not at all; a folder has one writer; every path may be text or any path."""

import ast
import errno
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

import thinwire
from thinwire import files
from thinwire.errors import ConfigError
from thinwire.files import FolderLock, append_text, write_atomically, write_beside

ROOT = Path(thinwire.__file__).parent


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("torch: disk full")]
)
def test_a_file_that_cannot_be_written_is_as_it_was(failure: Exception, tmp_path: Path) -> None:
    write_atomically(tmp_path / "below" / "file", b"whole")

    def fail(file: BinaryIO) -> None:
        file.write(b"ha")
        raise failure

    with pytest.raises(ConfigError, match=r"below/file cannot be written \((No space|torch: disk).*make room there"):
        write_beside(tmp_path / "below" / "file", fail)
    assert names(tmp_path / "below") == ["file"]
    assert (tmp_path / "below" / "file").read_bytes() == b"whole"


def test_an_interruption_leaves_nothing_beside(tmp_path: Path) -> None:
    def interrupt(file: BinaryIO) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_beside(tmp_path / "file", interrupt)
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", [lambda path: write_atomically(path, b"x"), lambda path: append_text(path, "x")])
def test_a_path_through_a_file_is_refused(write: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/below cannot be written \("):
        write(tmp_path / "file" / "below")


def test_text_is_appended_in_full_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "below" / "lines"
    append_text(path, "one\n")
    append_text(str(path), "zwölf\n")
    assert path.read_text(encoding="utf-8") == "one\nzwölf\n"
    real, space = os.write, 3

    class Full:
        """A file on a disk with room for three more bytes."""

        def __init__(self, opened: int) -> None:
            self.opened = opened

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *error: object) -> None:
            os.close(self.opened)

        def seek(self, offset: int, whence: int) -> int:
            return os.lseek(self.opened, offset, whence)

        def truncate(self, size: int) -> None:
            os.ftruncate(self.opened, size)

        def write(self, data: memoryview) -> int:
            nonlocal space
            if not space:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = real(self.opened, data[:space])
            space -= written
            return written

    monkeypatch.setattr(
        files, "open", lambda path, *_, **__: Full(os.open(path, os.O_RDWR | os.O_APPEND)), raising=False
    )
    with pytest.raises(ConfigError, match=r"lines cannot be written \(No space left on device\)"):
        append_text(path, "three\n")
    assert path.read_text(encoding="utf-8") == "one\nzwölf\n"


def test_a_folder_has_one_holder(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path / "new"), FolderLock(str(tmp_path / "new"))
    assert second.holder() == ""
    assert not (tmp_path / "new").exists()
    assert first.acquire() == first.acquire() == ""
    assert second.acquire() == second.holder() == f"process {os.getpid()} on {os.uname().nodename}"
    first.release()
    assert second.holder() == ""
    assert second.acquire() == ""
    assert first.acquire() != ""
    del second  # whoever is forgotten holds nothing
    assert first.acquire() == ""
    first.release()


def test_a_process_that_is_killed_holds_nothing_and_one_that_lives_does(tmp_path: Path) -> None:
    script = (
        "import sys, time; from thinwire.files import FolderLock; lock = FolderLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, env=environment, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        lock = FolderLock(tmp_path)
        assert lock.acquire().startswith(f"process {other.pid} on ")
        other.kill()
        other.wait()
        assert lock.acquire() == ""
        lock.release()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is copied there")
def test_a_copy_of_the_process_does_not_hold_what_its_original_lets_go(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.acquire()
    (waits, wakes), (hears, tells) = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, of which the copy has none
        copied = os.fork()
    if not copied:
        os.close(wakes)
        os.write(tells, b"x")
        os.read(waits, 1)
        os._exit(0)
    os.read(hears, 1)
    try:
        assert FolderLock(tmp_path).acquire() != ""  # what the copy closed is still locked here
        lock.release()
        other = FolderLock(tmp_path)
        assert other.acquire() == ""
        other.release()
    finally:
        os.close(wakes)
        os.waitpid(copied, 0)
        for end in (waits, hears, tells):
            os.close(end)


def test_a_file_system_without_locks_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(opened: int) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_lock", refuse)
    lock = FolderLock(tmp_path)
    with pytest.warns(UserWarning, match="without locks .*see to it that nobody else writes"):
        assert lock.acquire() == ""
    assert lock.acquire() == ""
    lock.release()


PATHS = {"path", "folder", "out", "file", "filepath", "checkpoint_path", "checkpoint_id", "html"}


def public(parent: ast.AST) -> list[tuple[str, str, str]]:
    """``(where, argument or field, annotation)`` of everything public."""
    found = []
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [(f"{node.name}.{where}", name, kind) for where, name, kind in public(node)]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(parent, ast.ClassDef):
            found.append(("field", node.target.id, ast.unparse(node.annotation)))
        if isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            found += [(node.name, arg.arg, ast.unparse(arg.annotation)) for arg in arguments if arg.annotation]
    return [each for each in found if not each[1].startswith("_")]


@pytest.mark.parametrize(
    "source",
    [path for path in sorted(ROOT.rglob("*.py")) if "cli" not in path.parts],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_what_takes_a_path_takes_text_and_any_path(source: Path) -> None:
    for where, name, kind in public(ast.parse(source.read_text())):
        words = kind.replace("|", " ").replace("[", " ").replace("]", " ").split()
        # Fields that are text are what a message holds.
        only_text = name in PATHS and words in (["str"], ["str", "None"]) and not where.endswith("field")
        assert not only_text, f"{where}: {name} is {kind}; it is StrPath"
        assert "Path" not in words, f"{where}: {name} is {kind}; it is StrPath"
