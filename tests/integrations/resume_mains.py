"""Run by torchrun: examples as a user runs them, then resumed from their middle in another folder, in fresh objects."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist

EXAMPLES = Path(__file__).parents[2] / "examples"


def main(folder: str, example: str, middle: str, resume: str, *length: str, methods: list[str]) -> None:
    run = importlib.import_module(example).main
    for method in methods:
        whole, resumed = (Path(folder) / example / method / part for part in ("whole", "resumed"))
        for target, more in ((whole, []), (resumed, ["--resume", resume.format(resumed)])):
            if target == resumed:
                if dist.get_rank() == 0:
                    resumed.mkdir()
                    for saved in whole.glob(f"{middle}*"):
                        (shutil.copytree if saved.is_dir() else shutil.copy)(saved, resumed / saved.name)
                dist.barrier()
                torch.manual_seed(99)
            run(["--method", method, "--folder", str(target), *length, *more])


if __name__ == "__main__":
    sys.path.insert(0, str(EXAMPLES))
    plan = json.loads(sys.argv[2])
    for case in plan["cases"]:
        main(sys.argv[1], *case, methods=plan["methods"])
    dist.destroy_process_group()
