"""Starts one process a worker on this machine. They meet in a private folder: nobody else can reach them."""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed as dist

from thinwire.distributed import Transport
from thinwire.errors import ConfigError, ThinwireError, WorkerError
from thinwire.experiments.ending import signals_raise
from thinwire.experiments.processes import new_process
from thinwire.files import write_atomically

LINGER_S = 5.0
"""How long a worker that lost another one waits for the launcher to notice that one and end everybody."""

_PATIENCE_S = 5.0
"""How long a worker that is told to end may take, before it is killed."""


def launch(num_workers: int, main: Callable[[Transport], None]) -> None:
    """Run ``main`` in ``num_workers`` processes that are connected over gloo on the loopback interface.

    They find each other through a file in a temporary folder that only this user can enter; no port is opened for it.
    ``main`` must be importable by name (or a ``functools.partial`` of such a function). When one process fails
    or is killed, the others are ended within seconds.

    Args:
        num_workers: processes to start.
        main: called in each with its transport.

    Raises:
        ConfigError: what a worker raised was a ConfigError.
        WorkerError: a worker raised or was killed; the message is the first failure's.
        KeyboardInterrupt: SIGINT came; the workers are ended.
        Terminated: SIGTERM came; the workers are ended.
    """
    with signals_raise(), tempfile.TemporaryDirectory(prefix="thinwire-") as folder:
        workers = [
            new_process(f"thinwire-worker-{rank}", _child, (main, folder, rank, num_workers))
            for rank in range(num_workers)
        ]
        try:
            for worker in workers:
                worker.start()
            _wait(workers)
        finally:
            _end(workers)
        exits = {rank: worker.exitcode for rank, worker in enumerate(workers) if worker.exitcode}
        if exits:
            raise _first_failure(exits, Path(folder))


def join(main: Callable[[Transport], None]) -> None:
    """Run ``main`` in this process, which torchrun started together with the others."""
    dist.init_process_group("gloo")
    _take_part(main)


def is_lead() -> bool:
    """Whether this process is the only one of its command or, under torchrun, the one that talks to the user."""
    return not dist.is_torchelastic_launched() or os.environ.get("RANK", "0") == "0"


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, even if it was killed.

    Nobody waits for its results then, and the next command must be the only one that writes.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="thinwire-parent-watch", daemon=True).start()


def _take_part(main: Callable[[Transport], None]) -> None:
    transport = Transport()
    main(transport)
    transport.share([])  # nobody leaves while another still reads
    transport.close()
    dist.destroy_process_group()


def _child(main: Callable[[Transport], None], folder: str, rank: int, size: int) -> None:
    end_with_parent()
    # All workers are on this machine, and nobody else is to reach them, whatever interface other programs use.
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    torch.set_num_threads(1)
    # Ctrl-C reaches the launcher too, which waits for its children: end at once, without a traceback each. SIGTERM,
    # by which the launcher ends its children, does so by default.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        store = dist.FileStore(str(Path(folder, "store")), size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
        _take_part(main)
    except BaseException as error:
        report = {
            "time": time.time(),
            "kind": type(error).__name__,
            "message": str(error) if isinstance(error, ThinwireError) else "".join(traceback.format_exception(error)),
        }
        # A worker may be killed here at any time; the launcher reads whole reports only.
        write_atomically(Path(folder, f"rank-{rank}.json"), json.dumps(report).encode())
        sys.stdout.flush()
        if isinstance(error, WorkerError):
            # Another worker's failure came first. The launcher looks at one exit status; it must not be ours.
            time.sleep(LINGER_S)
        os._exit(1)  # the communication thread may wait for a peer for ever


def _wait(workers: Sequence[BaseProcess]) -> None:
    """Until all have ended well, or one has not."""
    running = {worker.sentinel: worker for worker in workers}
    while running:
        for sentinel in connection.wait(list(running)):
            assert isinstance(sentinel, int)
            worker = running.pop(sentinel)
            worker.join()
            if worker.exitcode:
                return


def _end(workers: Sequence[BaseProcess]) -> None:
    """End those that still run."""
    for worker in workers:
        if worker.is_alive():
            worker.terminate()
    deadline = time.monotonic() + _PATIENCE_S
    for worker in workers:
        if worker.pid is not None:
            worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()


def _first_failure(exits: dict[int, int], folder: Path) -> ThinwireError:
    """The failure that the others followed from."""
    kept = "Results so far are kept; run the same command to go on"
    reports = {
        int(path.stem.removeprefix("rank-")): json.loads(path.read_text()) for path in folder.glob("rank-*.json")
    }
    causes = {rank: report for rank, report in reports.items() if report["kind"] != WorkerError.__name__}
    if causes:
        rank, report = min(causes.items(), key=lambda item: float(item[1]["time"]))
        if report["kind"] == ConfigError.__name__:
            return ConfigError(report["message"])
        return WorkerError(f"worker {rank} failed: {report['message'].strip()}\n{kept}")
    killed = {rank: -code for rank, code in exits.items() if code < 0 and rank not in reports}
    if killed:
        rank = min(killed, key=lambda r: killed[r] == signal.SIGTERM)  # SIGTERM is how the launcher ends the rest
        return WorkerError(f"worker {rank} was killed by {signal.Signals(killed[rank]).name}. {kept}")
    lost = min(reports.values(), key=lambda report: float(report["time"]), default={"message": "a worker failed"})
    return WorkerError(f"{lost['message']}. {kept}")
