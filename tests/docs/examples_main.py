"""Runs several examples one after the other in the same processes: most of their time would go into imports."""

import importlib
import sys

import torch.distributed as dist

if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    sys.path.insert(0, "examples")
    # One process group for all: torchrun's store keeps the addresses of one that was destroyed.
    dist.init_process_group("gloo")
    vars(dist).update(init_process_group=lambda *backend: None, destroy_process_group=lambda: None)
    for name in names:
        arguments = (folder,) if name == "local_steps" else ()
        importlib.import_module(name).main(*arguments)
