"""A method of your own is a product of parts, and a part is a small frozen class: here a schedule. Run it with

torchrun --standalone --nproc-per-node 2 examples/own_method.py
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import thinwire
from thinwire.compressors import QSGD, TopK
from thinwire.config import register
from thinwire.exchanges import Gather
from thinwire.memory import ErrorFeedback
from thinwire.methods import ModelAveraging, Outer


@register
@dataclass(frozen=True, slots=True)
class Widening:
    """Exchanges after steps 1, 3, 6, 10, ...: often while everything moves, later every ``most`` steps."""

    most: int = 8

    @property
    def workers_agree(self) -> bool:
        return True

    def due(self, num_steps: int, rank: int) -> bool:
        end = self.most * (self.most + 1) // 2
        if num_steps >= end:
            return (num_steps - end) % self.most == 0
        return any(num_steps == gap * (gap + 1) // 2 for gap in range(1, self.most))


METHOD = ModelAveraging(
    schedule=Widening(),
    memory=ErrorFeedback(),
    compressor=TopK(density=0.05, values=QSGD(levels=7, scaled=True)),
    exchange=Gather(),
    update=Outer(lr=0.9, momentum=0.3, nesterov=True),
)


def main(num_steps: int = 200) -> None:
    dist.init_process_group()
    rank, size = dist.get_rank(), dist.get_world_size()
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    images, labels = images.float() / 16, labels.long()
    train, test = slice(rank, 1500, size), slice(1500, None)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with thinwire.synchronize(optimizer, model, METHOD) as sync:
        generator = torch.Generator().manual_seed(rank)
        for _ in range(num_steps):
            batch = torch.randint(len(images[train]), (32,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(images[train][batch]), labels[train][batch]).backward()
            optimizer.step()
        with sync.shared_model() as shared:
            accuracy = (shared(images[test]).argmax(1) == labels[test]).float().mean().item()
        if rank == 0:
            dense = 4 * num_steps * sum(param.numel() for param in model.parameters())
            print(
                f"own method: accuracy {accuracy:.3f}, {sync.message_bytes:,} message bytes; dense gradients: {dense:,}"
            )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
