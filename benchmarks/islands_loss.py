"""What ``signtopk:density=1%`` between islands costs in loss: the model of ``examples/hsdp.py`` on 2 x 2 processes.

FSDP2 averages over the islands, or ``thinwire.compress_fsdp`` does; the rate falls to 0 along a cosine. A line is
``method@rate@seed: loss`` on text that was not seen, after each quarter of the steps.

    torchrun --standalone --nproc-per-node 4 benchmarks/islands_loss.py 1500 plain@0.003@0 signtopk:density=1%@0.01@0
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import hsdp


def losses(mesh: DeviceMesh, method: str, lr: float, seed: int, num_steps: int) -> list[float]:
    """After each quarter of the steps; ``plain`` is without thinwire."""
    text, seen = hsdp.texts()
    model, handle = hsdp.made(mesh, method, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    generator = torch.Generator().manual_seed(1000 * seed + dist.get_rank())
    found = []
    for step in range(1, num_steps + 1):
        starts = torch.randint(seen - hsdp.CONTEXT - 1, (8,), generator=generator)
        optimizer.zero_grad()
        hsdp.loss_of(model, text, starts).backward()
        optimizer.step()
        schedule.step()
        if step % (num_steps // 4) == 0:
            found.append(hsdp.held_out_loss(model, text, seen))
    if handle is not None:
        handle.close()
    return found


def main(num_steps: str, *cases: str) -> None:
    """Train each case, one after another."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("replicate", "shard"))
    for case in cases:
        method, lr, seed = case.rsplit("@", 2)
        found = losses(mesh, method, float(lr), int(seed), int(num_steps))
        if dist.get_rank() == 0:
            print(f"{case}: {', '.join(f'{loss:.4f}' for loss in found)}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
