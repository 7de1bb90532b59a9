"""Local steps with AdamW, a scheduler and checkpoints that survive a kill. Run it, kill it, run it again:

torchrun --standalone --nproc-per-node 2 examples/local_steps.py
"""

import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import thinwire


def main(
    folder: str = "runs/local_steps", method: str = "signtopk:density=2%,every=4", *, num_steps: int = 300
) -> None:
    dist.init_process_group()
    rank, size = dist.get_rank(), dist.get_world_size()
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    images, labels = images.float() / 16, labels.long()
    train, test = slice(rank, 1500, size), slice(1500, None)

    torch.manual_seed(rank)  # of dropout; training begins with what worker 0 has
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)

    with thinwire.synchronize(optimizer, model, method) as sync:  # the one line
        checkpoints = thinwire.Checkpoints(
            folder, {"model": model, "optimizer": optimizer, "scheduler": scheduler, "thinwire": sync}
        )
        begin = checkpoints.load() or 0
        if rank == 0 and begin:
            print(f"going on from step {begin}")
        for step in range(begin, num_steps):
            generator = torch.Generator().manual_seed(1000 * step + rank)
            batch = torch.randint(len(images[train]), (32,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(images[train][batch]), labels[train][batch]).backward()
            optimizer.step()
            scheduler.step()
            if (step + 1) % 50 == 0:
                checkpoints.save(step + 1)

        with sync.shared_model() as shared:  # between two exchanges the processes' own models have drifted from it
            shared.eval()
            accuracy = (shared(images[test]).argmax(1) == labels[test]).float().mean().item()
        if rank == 0:
            dense = 4 * num_steps * sum(param.numel() for param in model.parameters())
            print(
                f"{method}: accuracy {accuracy:.3f}, {sync.message_bytes:,} message bytes; dense gradients: {dense:,}"
            )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:3])
