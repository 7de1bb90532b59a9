"""An ordinary DDP script with one line of thinwire. Run it with

torchrun --standalone --nproc-per-node 2 examples/ddp_hook.py
"""

import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import thinwire


def main(method: str = "signtopk:density=2%", *, num_steps: int = 200) -> None:
    dist.init_process_group()
    rank, size = dist.get_rank(), dist.get_world_size()
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    images, labels = images.float() / 16, labels.long()
    train, test = slice(rank, 1500, size), slice(1500, None)

    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)))
    gradients = thinwire.compress_ddp(model, method)  # the one line
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    generator = torch.Generator().manual_seed(rank)
    for _ in range(num_steps):
        batch = torch.randint(len(images[train]), (32,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(images[train][batch]), labels[train][batch]).backward()
        optimizer.step()

    if rank == 0:
        accuracy = (model.module(images[test]).argmax(1) == labels[test]).float().mean().item()
        dense = 4 * num_steps * sum(param.numel() for param in model.parameters())
        print(
            f"{method}: accuracy {accuracy:.3f}, {gradients.message_bytes:,} message bytes; dense gradients: {dense:,}"
        )
    gradients.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:2])
