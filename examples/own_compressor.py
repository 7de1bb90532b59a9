"""An operator of your own: one class, and it composes with every memory, exchange and schedule. Run it with

python examples/own_compressor.py
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import thinwire
from thinwire.compressors import Traits
from thinwire.config import register
from thinwire.exchanges import Gather
from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback
from thinwire.methods import Every, ModelAveraging
from thinwire.payloads import Dense, Sparse
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class BlockMax:
    """The largest entry of each block of ``length``: a top-k without a search, with ``gamma = 1 / length``."""

    length: int = 64

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sparse:
        padded = nn.functional.pad(x, (0, -x.numel() % self.length)).view(-1, self.length)
        indices = padded.abs().argmax(1) + self.length * torch.arange(len(padded))
        return Sparse(x.numel(), indices, Dense(x[indices]))

    def traits(self, numel: int) -> Traits:
        # The largest of n squares is at least a share 1/n of their sum.
        return Traits(unbiased=False, error=1.0 - 1.0 / self.length)

    def outline(self, segments: Segments) -> Sparse:
        count = -(-segments.numel // self.length)
        return Sparse(
            segments.numel,
            torch.empty(count, dtype=torch.int64, device="meta"),
            Dense(torch.empty(count, device="meta")),
        )


def main(num_steps: int = 400) -> None:
    method = ModelAveraging(
        schedule=Every(4), memory=ErrorFeedback(), compressor=BlockMax(length=32), exchange=Gather()
    )
    target = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    workers = []
    for rank in range(4):
        model = nn.Linear(20, 3, bias=False)
        nn.init.zeros_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        workers.append(thinwire.Worker(method, model, optimizer, rank=rank, size=4, seed=0))
    simulation = thinwire.Simulation(4)
    for step in range(num_steps):
        for worker in workers:
            x = torch.randn(16, 20, generator=torch.Generator().manual_seed(10 * step + worker.rank))
            worker.optimizer.zero_grad()
            (worker.model(x) - x @ target).square().mean().backward()
        simulation.run([worker.step() for worker in workers])
    (weight,) = workers[0].shared_parameters().values()
    print(
        f"{method.compressor}: relative error {(weight - target.T).norm() / target.norm():.4f}, "
        f"{workers[0].message_bytes:,} message bytes of {4 * target.numel() * num_steps:,}"
    )


if __name__ == "__main__":
    main()
