"""Executes the runs of a comparison as tasks of Ray: on a cluster, or on one that begins and ends with the command."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinwire.errors import ConfigError, ThinwireError, WorkerError
from thinwire.experiments.executors import POLL_S, Watch, simulate_by_name
from thinwire.experiments.records import is_done
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task
from thinwire.files import StrPath
from thinwire.plugins import import_package


class RayExecutor:
    """Simulates each run in a task of Ray Core that takes one processor.

    All nodes must have thinwire, the task's data, and the folder of the comparison under the same path.

    Args:
        jobs: processors of a cluster that is started here, and ended with the runs.
        address: of a cluster that runs, or ``auto``, instead.

    Raises:
        ConfigError: ray is not installed.
    """

    def __init__(self, jobs: int, address: str = "") -> None:
        self._begin: dict[str, Any] = (
            {"address": address} if address else {"address": "local", "num_cpus": jobs, "include_dashboard": False}
        )
        self.is_main = True
        self._ray = import_package("ray", "--on ray")

    def execute(self, comparison: Comparison, task: Task, runs: Sequence[Run], out: StrPath, watch: Watch) -> None:
        """See :meth:`thinwire.experiments.executors.Executor.execute`; nodes make the task from its name.

        Raises:
            WorkerError: a task of Ray failed, or left nothing in the folder.
        """
        folder = Path(out).resolve()
        pending = [run for run in runs if not is_done(folder, run)]
        if not pending:
            return
        ray = self._ray
        is_ours = not ray.is_initialized()
        if is_ours:
            try:
                ray.init(log_to_driver=False, **self._begin)
            except (ConnectionError, ValueError) as error:
                raise ConfigError(f"--on ray: there is no cluster at {self._begin['address']} ({error})") from error
        try:
            # Modules of the user's, which the task may be in, are found by this process's path.
            remote = ray.remote(num_cpus=1, max_retries=0)(_simulate_on_node)
            waiting = {remote.remote(comparison, run, str(folder), list(sys.path)): run for run in pending}
            left = list(waiting)
            while left:
                done, left = ray.wait(left, timeout=POLL_S)
                watch()
                for each in done:
                    self._finish(each, waiting[each], folder)
        finally:
            if is_ours:
                ray.shutdown()

    def decide(self, values: Sequence[float]) -> list[float]:
        """There is only this process."""
        return list(values)

    def _finish(self, done: Any, run: Run, folder: Path) -> None:
        try:
            self._ray.get(done)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ThinwireError):
                raise error.cause from error
            raise WorkerError(f"the run {run.name} failed on a node of Ray: {error.cause or error}") from error
        except self._ray.exceptions.RayError as error:
            raise WorkerError(
                f"Ray lost the run {run.name} ({error}); what is finished is kept. Run the same command to go on"
            ) from error
        if not is_done(folder, run):
            raise WorkerError(
                f"the run {run.name} left no records in {folder}: all nodes of Ray must see that folder under that path"
            )


def _simulate_on_node(comparison: Comparison, run: Run, out: str, path: list[str]) -> None:
    sys.path += [each for each in path if each not in sys.path]
    simulate_by_name(comparison, run, out)
