"""An ordinary training script with one line of thinwire. Run it with

torchrun --standalone --nproc-per-node 2 examples/one_line.py
"""

import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import thinwire


def main(method: str = "signtopk:density=2%,every=4", *, num_steps: int = 200) -> None:
    dist.init_process_group()
    rank, size = dist.get_rank(), dist.get_world_size()
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    images, labels = images.float() / 16, labels.long()
    train, test = slice(rank, 1500, size), slice(1500, None)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sync = thinwire.synchronize(optimizer, model, method)  # the one line

    generator = torch.Generator().manual_seed(rank)
    for _ in range(num_steps):
        batch = torch.randint(len(images[train]), (32,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(images[train][batch]), labels[train][batch]).backward()
        optimizer.step()

    if rank == 0:
        with sync.shared_model() as shared:
            accuracy = (shared(images[test]).argmax(1) == labels[test]).float().mean().item()
        dense = 4 * num_steps * sum(param.numel() for param in model.parameters())
        print(f"{method}: accuracy {accuracy:.3f}, {sync.message_bytes:,} message bytes; dense gradients: {dense:,}")
    sync.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:2])
