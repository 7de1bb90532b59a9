"""What processes run that repeat a training under the hook; a module of its own, so that they can import it by name."""

import copy
from pathlib import Path
from typing import Any

import torch
from place import DEVICE, IS_CUDA, host, working
from pretended_streams import ORDER
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import Transport

REPEATS = 200 if IS_CUDA else 3
STEPS = 3
WIDTH = 300 if IS_CUDA else 30
METHODS = ("signtopk:density=5%", "qsgd:bits=4", "ef-signsgd", "sgd")


class Drawn(nn.Module):
    """Layers whose gradients are drawn on the CPU; nothing in a step waits for the device but what thinwire does."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ParameterList(torch.zeros(WIDTH, WIDTH) for _ in range(6))

    def forward(self, gradients: list[Tensor]) -> Tensor:
        """A number whose gradients are those."""
        return torch.stack([(layer * grad).sum() for layer, grad in zip(self.layers, gradients, strict=True)]).sum()


def gradients_of(rank: int) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(rank)
    return [[torch.randn(WIDTH, WIDTH, generator=generator).to(DEVICE) for _ in range(6)] for _ in range(STEPS)]


def repeated(rank: int, method: str) -> list[Tensor]:
    """The parameters at the end of each training; all begin with the same parameters and state.

    The first of them all is left out: DDP cuts its buckets anew in it.
    """
    model = Drawn().to(DEVICE)
    ddp = DistributedDataParallel(model, bucket_cap_mb=8e-6 * WIDTH * WIDTH)
    optimizer, gradients = torch.optim.SGD(model.parameters(), lr=2.0**-4), gradients_of(rank)
    results = []
    with thinwire.compress_ddp(ddp, method, warn_if_slower=False) as handle:
        start = copy.deepcopy(handle.state_dict())
        for _ in range(REPEATS + 1):
            with torch.no_grad():
                for param in model.parameters():
                    param.zero_()
            handle.load_state_dict(copy.deepcopy(start))
            for given in gradients:
                optimizer.zero_grad()
                ddp(given).backward()
                optimizer.step()
            results.append(torch.cat([host(param).clone().view(-1) for param in model.parameters()]))
    return results[1:]


def repeat_all(folder: str, transport: Transport) -> None:
    """How many results of each method there are, whether all are alike, whether any is not 0, and what overtook."""
    found: dict[str, Any] = {}
    with working():
        for method in METHODS:
            results = repeated(transport.rank, method)
            alike = sum(torch.equal(each, results[0]) for each in results)
            found[method] = [len(results), alike, int(results[0].count_nonzero()), list(ORDER.races)]
            found[f"{method}, the first"] = results[0]
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))
