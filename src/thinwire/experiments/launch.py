"""Starts one process a worker on this machine, by torch's own launcher."""

import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from thinwire.distributed import Transport
from thinwire.errors import ConfigError, ThinwireError, WorkerError
from thinwire.experiments.ending import Terminated
from thinwire.experiments.processes import start_method

LINGER_S = 5.0
"""How long a worker that lost another one waits for the launcher to notice that one and end everybody."""


def launch(num_workers: int, main: Callable[[Transport], None], port: int | None = None) -> None:
    """Run ``main`` in ``num_workers`` processes that are connected over gloo on the loopback interface.

    ``main`` must be importable by name (or a ``functools.partial`` of such a function). When one process fails
    or is killed, the others are ended within seconds.

    Args:
        num_workers: processes to start.
        main: called in each with its transport.
        port: where the processes meet; a free one by default.

    Raises:
        ConfigError: the port is taken, or what a worker raised was a ConfigError.
        WorkerError: a worker raised or was killed; the message is the first failure's.
        KeyboardInterrupt: SIGINT came; the workers are ended.
        Terminated: SIGTERM came; the workers are ended.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if port is not None:
        _refuse_taken(port)
    for name in list(logging.root.manager.loggerDict):
        # torch gives each of its loggers a level of its own, so that the level above them does not count.
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    before = {number: signal.getsignal(number) for number in _torch_handles()}
    with tempfile.TemporaryDirectory(prefix="thinwire-") as errors:
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=num_workers, rdzv_backend="c10d",
            rdzv_endpoint=f"localhost:{port or 0}", run_id=f"thinwire-{os.getpid()}", max_restarts=0,
            monitor_interval=0.1, start_method=start_method(),
        )  # fmt: skip
        try:
            elastic_launch(config, _child)(main, errors)
        except ChildFailedError as error:
            exits = {failure.local_rank: failure.exitcode for failure in error.failures.values()}
            raise _first_failure(exits, Path(errors)) from None
        except SignalException as error:
            # torch's handlers turn both signals into this exception, after they have ended the workers.
            raise (KeyboardInterrupt if error.sigval == signal.SIGINT else Terminated) from None
        finally:
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)


def join(main: Callable[[Transport], None]) -> None:
    """Run ``main`` in this process, which torchrun started together with the others."""
    dist.init_process_group("gloo")
    transport = Transport()
    main(transport)
    transport.share([])  # nobody leaves while another still reads
    transport.close()
    dist.destroy_process_group()


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


def _child(main: Callable[[Transport], None], errors: str) -> None:
    end_with_parent()
    rank = int(os.environ["LOCAL_RANK"])
    # All workers are on this machine; without it gloo may advertise an address that is not reachable.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    torch.set_num_threads(1)
    # Ctrl-C reaches the launcher too, which waits for its children: end at once, without a traceback each. SIGTERM,
    # by which the launcher ends its children, does so by default.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        join(main)
    except BaseException as error:
        report = {
            "time": time.time(),
            "kind": type(error).__name__,
            "message": str(error) if isinstance(error, ThinwireError) else "".join(traceback.format_exception(error)),
        }
        partial = Path(errors, f"rank-{rank}.partial")
        partial.write_text(json.dumps(report))
        # A worker may be killed here at any time; the launcher reads whole reports only.
        os.replace(partial, partial.with_suffix(".json"))
        sys.stdout.flush()
        if isinstance(error, WorkerError):
            # Another worker's failure came first. The launcher looks at one exit status; it must not be ours.
            time.sleep(LINGER_S)
        os._exit(1)  # the communication thread may wait for a peer for ever


def _torch_handles() -> list[signal.Signals]:
    """The signals that torch's launcher handles in its own way; only the main thread may set handlers."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP, signal.SIGQUIT] if sys.platform != "win32" else [])]


def _first_failure(exits: dict[int, int], errors: Path) -> ThinwireError:
    """The failure that the others followed from."""
    kept = "Results so far are kept; run the same command to go on"
    reports = {
        int(path.stem.removeprefix("rank-")): json.loads(path.read_text()) for path in errors.glob("rank-*.json")
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


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        try:
            probe.bind(("localhost", port))
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be used ({error.strerror}); give another --port, or none to take a free one"
            ) from None
