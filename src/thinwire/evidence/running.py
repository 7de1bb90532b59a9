"""Runs the commands of studies, several at a time, and knows which are done."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from thinwire.errors import ConfigError
from thinwire.evidence.study import Part
from thinwire.experiments.ending import signals_raise
from thinwire.experiments.run_folders import made_by
from thinwire.files import FolderLock, StrPath, write_atomically

Watch = Callable[[int, int, str], None]
"""Is told how many parts are done, of how many, and which one was last."""


def part_folder(out: StrPath, part: Part) -> Path:
    """Where the results of a part lie.

    Example:
        >>> part = Part(study="threads", name="contest", size="quick", arguments=("hogwild",))
        >>> part_folder("runs/reproduce", part).as_posix()
        'runs/reproduce/quick/threads/contest'
    """
    return Path(out) / part.size / part.study / part.name


def is_done(out: StrPath, part: Part) -> bool:
    """Whether its command ended well.

    Raises:
        ConfigError: the folder holds the results of another command, or of another version.
    """
    path = part_folder(out, part) / "done.json"
    if not path.exists():
        return False
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); delete it to run the command again") from error
    if found != _mark(part):
        raise ConfigError(
            f"{path.parent} holds the results of another command or version ({found!r:.200}); give another --out, or "
            "delete that folder"
        )
    return True


def run_parts(parts: Sequence[Part], out: StrPath, jobs: int, watch: Watch) -> dict[str, str]:
    """Run what is not done yet, in processes of their own.

    Those that measure time run one after the other, when the rest is over. A command that fails does not keep the
    others from running.

    Args:
        parts: of one size.
        out: the folder of them all.
        jobs: how many run at a time.
        watch: is called at first and after each.

    Returns:
        What went wrong, by key; what each command printed lies in ``output.txt`` of its folder.

    Raises:
        ConfigError: the folder is being written to by another call, cannot be written, or holds other results.
        KeyboardInterrupt: SIGINT came; the commands are ended.
        Terminated: SIGTERM came; the commands are ended.
    """
    lock = FolderLock(Path(out))
    holder = lock.acquire()
    if holder:
        raise ConfigError(f"--out {out} is being written to by {holder}; wait for it, or give another --out")
    try:
        todo = [part for part in parts if not is_done(out, part)]
        failures: dict[str, str] = {}
        num_done = len(parts) - len(todo)
        watch(num_done, len(parts), "")

        def tell(part: Part, problem: str) -> None:
            nonlocal num_done
            if problem:
                failures[part.key] = problem
            num_done += 1
            watch(num_done, len(parts), part.key)

        together = [part for part in todo if not part.alone]
        with signals_raise():
            for group, width in ((together, jobs), ([part for part in todo if part.alone], 1)):
                _run_all(group, out, width, tell)
        return failures
    finally:
        lock.release()


class _Processes:
    """Those that run, so that an interrupted call leaves none behind."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._mutex = threading.Lock()
        self._ended = False

    def run(self, arguments: Sequence[str], output: Path) -> int:
        with open(output, "wb") as file:
            with self._mutex:
                if self._ended:
                    return -1
                process = subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
                self._running.add(process)
            try:
                return process.wait()
            finally:
                with self._mutex:
                    self._running.discard(process)

    def end(self) -> None:
        with self._mutex:
            self._ended = True
            for process in self._running:
                process.terminate()


def _run_all(parts: Sequence[Part], out: StrPath, jobs: int, tell: Callable[[Part, str], None]) -> None:
    processes = _Processes()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            waiting = {pool.submit(_run, part, out, processes): part for part in parts}
            for future in as_completed(waiting):
                tell(waiting[future], future.result())
        except BaseException:
            processes.end()
            raise


def _run(part: Part, out: StrPath, processes: _Processes) -> str:
    """What went wrong, if anything did."""
    folder = part_folder(out, part)
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "output.txt"
    status = processes.run([sys.executable, "-m", "thinwire", *part.arguments_in(folder)], output)
    if status:
        said = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
        return f"{part.command} ended with status {status}: {said[-1] if said else 'it printed nothing'}"
    write_atomically(folder / "done.json", json.dumps(_mark(part), indent=1).encode())
    return ""


def _mark(part: Part) -> dict[str, str]:
    return {"command": part.command, **made_by()}
