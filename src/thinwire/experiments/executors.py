"""Who executes the runs of a comparison: this process, a pool of them, or one process a worker."""

import functools
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

import torch

from thinwire.distributed import Transport
from thinwire.errors import ThinwireError, WorkerError
from thinwire.experiments.clients.engine import simulating_engine
from thinwire.experiments.engines import ProcessEngine
from thinwire.experiments.launch import end_with_parent
from thinwire.experiments.processes import process_context
from thinwire.experiments.records import is_done, run_folder
from thinwire.experiments.session import Session
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task, describe_failure, load_task
from thinwire.files import StrPath
from thinwire.methods import parse_method
from thinwire.worker import needs_server

Watch = Callable[[], None]
POLL_S = 0.5


def default_jobs() -> int:
    """As many simulations at a time as this process may use processors."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Executor(Protocol):
    """Executes runs; on several processes, all of them call the same methods in the same order."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes results and talks to the user."""
        ...

    def execute(self, comparison: Comparison, task: Task, runs: Sequence[Run], out: StrPath, watch: Watch) -> None:
        """Finish every run that is not finished yet; ``watch`` is called now and then on the main process."""
        ...

    def decide(self, values: Sequence[float]) -> list[float]:
        """The main process's numbers, on every process."""
        ...


class LocalExecutor:
    """Simulates runs in ``jobs`` processes of this machine, each run in one of them."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self.is_main = True

    def execute(self, comparison: Comparison, task: Task, runs: Sequence[Run], out: StrPath, watch: Watch) -> None:
        """See :meth:`Executor.execute`. With several jobs, other processes make the task from its name.

        Raises:
            WorkerError: a simulating process was killed, or the task's code raised.
        """
        pending = [run for run in runs if not is_done(out, run)]
        if self._jobs == 1 or len(pending) <= 1:
            for run in pending:
                _simulate(comparison, task, run, out, watch)
            return
        others = set(multiprocessing.active_children())
        with ProcessPoolExecutor(self._jobs, mp_context=process_context(), initializer=_begin_in_pool) as pool:
            try:
                waiting = _submit(pool, comparison, pending, out)
                while waiting:
                    done, waiting = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
                    watch()
                    for future in done:
                        future.result()
            except BrokenProcessPool as error:
                raise WorkerError(
                    "a process that simulates runs was killed (out of memory?); what is finished is kept. Run the same "
                    "command again to go on, with fewer --jobs if memory is short"
                ) from error
            except BaseException:
                # Nobody wants the other runs now; they can go on from their checkpoints. A pool has no public way to
                # stop what runs in it, and without its processes it ends at once.
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
                pool.shutdown(cancel_futures=True)
                raise

    def decide(self, values: Sequence[float]) -> list[float]:
        """There is only this process."""
        return list(values)


class ProcessExecutor:
    """Trains each run with one worker in each process of the transport.

    Args:
        transport: of all processes: one for each worker and, if a method needs a server, one more.
        num_workers: how many of them train.
    """

    def __init__(self, transport: Transport, num_workers: int) -> None:
        self._transport = transport
        self.is_main = transport.rank == 0
        self._workers: Transport | None = transport
        if transport.size > num_workers:
            self._workers = transport.first(num_workers)

    def execute(self, comparison: Comparison, task: Task, runs: Sequence[Run], out: StrPath, watch: Watch) -> None:
        """See :meth:`Executor.execute`."""
        for run in runs:
            if self.decide([float(is_done(out, run))])[0]:
                continue
            engine = self._engine(run)
            if engine is not None:
                _follow(Session(comparison, run, task, engine, run_folder(out, run)), watch)

    def _engine(self, run: Run) -> ProcessEngine | None:
        """Where this process takes part in the run; None if it is the server and there is nothing to serve."""
        if needs_server(parse_method(run.variant)):
            return ProcessEngine(self._transport, served=True)
        return None if self._workers is None else ProcessEngine(self._workers)

    def decide(self, values: Sequence[float]) -> list[float]:
        """Ask process 0."""
        return self._transport.share(values)[0]


def _submit(pool: ProcessPoolExecutor, comparison: Comparison, runs: Sequence[Run], out: StrPath) -> set[Future[None]]:
    """Submit every run; the processes that this starts never see a Ctrl-C, not even while they import."""
    if sys.platform == "win32":
        return {pool.submit(simulate_by_name, comparison, run, out) for run in runs}
    # A blocked signal is inherited; one that arrives meanwhile reaches this process at the end.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return {pool.submit(simulate_by_name, comparison, run, out) for run in runs}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_in_pool() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and decides


def simulate_by_name(comparison: Comparison, run: Run, out: StrPath) -> None:
    """Simulate a run in a process that was started for such: the task is made from its name, once for many runs.

    Raises:
        ThinwireError: the run failed.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the process that is asked has loaded the same task and shown its warnings
    data = None if comparison.data is None else os.fspath(comparison.data)
    _simulate(comparison, _task(comparison.task, data), run, out)


def _simulate(comparison: Comparison, task: Task, run: Run, out: StrPath, watch: Watch | None = None) -> None:
    engine = simulating_engine(comparison, parse_method(run.variant))
    try:
        _follow(Session(comparison, run, task, engine, run_folder(out, run)), watch)
    except ThinwireError:
        raise
    except Exception as error:
        raise WorkerError(
            f"the run {run.name} failed: {describe_failure(error)}. What is finished is kept; run the same command "
            "to go on"
        ) from error


def _follow(session: Session, watch: Watch | None) -> None:
    last = 0.0
    for _ in session.records():
        if watch is not None and session.is_main and time.monotonic() - last > POLL_S:
            watch()
            last = time.monotonic()


@functools.lru_cache(maxsize=1)
def _task(name: str, data: str | None) -> Task:
    """A process executes many runs of one task; its data are loaded once."""
    return load_task(name, data=data)
