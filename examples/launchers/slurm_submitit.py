"""Any script of one process a rank, on SLURM, through submitit; without a cluster, as processes of this machine:

python examples/launchers/slurm_submitit.py --local
"""

import runpy
import sys
from pathlib import Path

import submitit

SCRIPT = Path(__file__).resolve().parents[1] / "one_line.py"


def train(script: str) -> None:
    """Runs in each task: what torchrun would say in the environment, submitit says."""
    submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")


def main() -> None:
    is_local = "--local" in sys.argv
    executor = submitit.AutoExecutor("runs/submitit", cluster="local" if is_local else "slurm")
    executor.update_parameters(nodes=1 if is_local else 2, tasks_per_node=2, cpus_per_task=1, timeout_min=30)
    job = executor.submit(train, str(SCRIPT))
    job.results()
    print(job.stdout())


if __name__ == "__main__":
    main()
