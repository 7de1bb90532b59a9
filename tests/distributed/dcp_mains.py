"""What the processes of the test of torch.distributed.checkpoint run."""

from pathlib import Path
from typing import Any

import kill_mains
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from thinwire.distributed import Transport
from thinwire.distributed.dcp import load_rank_state, rank_state

KINDS = ("signtopk:density=10%,every=4", "hook: topk:density=10%")


def save_all(folder: str, transport: Transport) -> None:
    found = []
    for number, kind in enumerate(KINDS):
        trainee, parts = made(kind, folder)
        trainee.train(0, 10, every=100)
        path = f"{folder}/dcp-{number}"
        dcp.save({"epoch": torch.tensor(3), **rank_state(parts)}, checkpoint_id=path)
        saved = trainee.everything()
        trainee.train(10, 14, every=100)
        found.append({"saved": saved, "trained": trainee.everything()})
        trainee.handle.close()
        again, parts = made(kind, folder)
        load_rank_state(parts, path)
        again.train(10, 14, every=100)
        found[-1]["again"] = again.everything()
        again.handle.close()
    torch.save(found, Path(folder, f"two-{transport.rank}.pt"))


def load_all(folder: str, transport: Transport) -> None:
    found = []
    for number, kind in enumerate(KINDS):
        trainee, parts = made(kind, folder)
        load_rank_state(parts, f"{folder}/dcp-{number}")
        found.append(trainee.everything())
        trainee.handle.close()
    torch.save(found, Path(folder, f"three-{transport.rank}.pt"))


def made(kind: str, folder: str) -> tuple[Any, dict[str, Any]]:
    trainee = kill_mains.Trainee(kind, f"{folder}/unused", dist.get_world_size())
    parts = {
        "model": trainee.model, "optimizer": trainee.optimizer, "scheduler": trainee.scheduler,
        "thinwire": trainee.handle,
    }  # fmt: skip
    return trainee, parts
