"""What processes with models on the pretended device run; a module of its own, so that they can import it by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from place import DEVICE, host, working
from pretended_streams import ORDER
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import Transport

STEPS = 5
HOOKED = ("sgd", "bf16-sgd", "signtopk:density=5%", "qsgd:bits=4", "ef-signsgd", "powersgd:rank=1", "dgc:density=5%")
SYNCHRONIZED = ("sgd", "qsgd:bits=4", "signtopk:density=5%,every=2", "diloco:every=2", "gtopk", "ok-topk")


def network(rank: int) -> nn.Module:
    """Another on each process, so that the one of process 0 is sent to the others."""
    torch.manual_seed(rank)
    return nn.Sequential(nn.Linear(24, 60), nn.ReLU(), nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 1))


def losses(rank: int, run: nn.Module, place: torch.device) -> Callable[[int], Tensor]:
    def loss(step: int) -> Tensor:
        x = torch.randn(16, 24, generator=torch.Generator().manual_seed(100 * rank + step)).to(place)
        return (run(x) - x[:, :1].sin()).square().mean()  # type: ignore[no-any-return]

    return loss


def hooked(rank: int, method: str, place: torch.device) -> dict[str, Any]:
    """Training under the hook of DDP, whose buckets hold few layers, with a guard and a report."""
    model = network(rank).to(place)
    ddp = DistributedDataParallel(model, bucket_cap_mb=0.005)
    loss, optimizer = losses(rank, ddp, place), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    waits: list[str] = []
    with thinwire.compress_ddp(ddp, method, warn_if_slower=False, guard=thinwire.ReplicaGuard(every=2)) as handle:
        for step in range(STEPS):  # the guard compares in the backward after an even step
            optimizer.zero_grad()
            ORDER.waits.clear()
            loss(step).backward()
            waits = list(ORDER.waits) if step == STEPS - 2 else waits
            optimizer.step()
        state = handle.state_dict()
        return {
            "parameters": [host(param).clone() for param in model.parameters()],
            "state": {name: host(tensor) for name, tensor in state["tensors"].items()},
            "bytes": handle.message_bytes,
            "waits": waits,
        }


def synchronized(rank: int, method: str, place: torch.device) -> dict[str, Any]:
    """Training by :func:`thinwire.synchronize`, in two parts: the second begins with the first one's state."""
    state: dict[str, Any] | None = None
    model = network(rank).to(place)
    for part in range(2):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        loss = losses(rank, model, place)
        with thinwire.synchronize(optimizer, model, method, guard=thinwire.ReplicaGuard(every=2)) as handle:
            if state is not None:
                handle.load_state_dict(state)
            for step in range(part * STEPS, (part + 1) * STEPS):
                optimizer.zero_grad()
                loss(step).backward()
                optimizer.step()
            handle.flush()
            state = handle.state_dict()
            num_bytes = handle.message_bytes
    return {"parameters": [host(param).clone() for param in model.parameters()], "bytes": num_bytes}


def train_all(folder: str, transport: Transport) -> None:
    """Everything on the CPU, then on the pretended device."""
    rank = transport.rank
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for train, methods in ((hooked, HOOKED), (synchronized, SYNCHRONIZED)):
        for method in methods:
            plain = train(rank, method, torch.device("cpu"))
            with working():
                pretended = train(rank, method, DEVICE)
                found[f"{train.__name__} {method}"] = plain, pretended, list(ORDER.races)
    torch.save(found, Path(folder, f"rank-{rank}.pt"))
