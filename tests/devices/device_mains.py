"""What processes with models on the pretended device run; a module of its own, so that they can import it by name."""

import functools
import os
import re
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
CHECKPOINTED = ("signtopk:density=5%,every=2", "streaming-diloco:every=1,fragments=3,delay=2")
SCRIPTED = ("signtopk:density=2%,every=4",)
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
    log: list[str] = []
    with thinwire.compress_ddp(ddp, method, warn_if_slower=False, guard=thinwire.ReplicaGuard(every=2)) as handle:
        for step in range(STEPS):  # the guard compares in the backward after an even step
            optimizer.zero_grad()
            ORDER.waits.clear()
            ORDER.log.clear()
            loss(step).backward()
            if step == STEPS - 2:
                waits, log = list(ORDER.waits), list(ORDER.log)
            optimizer.step()
        state = handle.state_dict()
        return {
            "parameters": [host(param).clone() for param in model.parameters()],
            "state": {name: host(tensor) for name, tensor in state["tensors"].items()},
            "bytes": handle.message_bytes,
            "waits": waits,
            "log": log,
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


def reseed(place: torch.device, seed: int) -> None:
    """Another state for the generator of a device that has its own."""
    if place.type != "cpu":
        torch.get_device_module(place).set_rng_state(torch.Generator().manual_seed(seed).get_state(), place)


def checkpointed(rank: int, method: str, place: torch.device) -> dict[str, Any]:
    """Training that is stopped, and goes on from a checkpoint with another model and optimizer."""
    found: dict[str, Any] = {}
    folder = f"{place.type}-{CHECKPOINTED.index(method)}"
    reseed(place, 7)
    for part in range(2):
        model = network(rank + part).to(place)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        loss = losses(rank, model, place)
        with thinwire.synchronize(optimizer, model, method) as handle:
            parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "handle": handle}
            checkpoints = thinwire.Checkpoints(folder, parts)
            begun = checkpoints.load() or 0
            if place.type != "cpu":
                found[f"random {part}"] = torch.get_device_module(place).get_rng_state(place)
            for step in range(begun, begun + STEPS):
                optimizer.zero_grad()
                loss(step).backward()
                optimizer.step()
            if part == 0:
                checkpoints.save(STEPS)
            reseed(place, 99)
            checkpoints.close()
            num_bytes = handle.message_bytes
    return {"parameters": [host(param).clone() for param in model.parameters()], "bytes": num_bytes, "random": found}


def scripted(rank: int, method: str, place: torch.device) -> dict[str, Any]:
    """The README's script as it stands there; on a device one call is added to one line of it."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = [each for each in re.findall(r"```diff\n(.*?)```", readme, re.DOTALL) if method in each]
    script = re.sub("^[ +] ", "", block, flags=re.MULTILINE).replace("dist.init_process_group()\n", "")
    if place.type != "cpu":
        script, count = re.subn(r"build_model\(\)", "build_model().to(device)", script)
        assert count == 1
    generator = torch.Generator().manual_seed(rank)
    batches = [torch.randn(16, 24, generator=generator).to(place) for _ in range(8)]
    names: dict[str, Any] = {
        "torch": torch, "thinwire": thinwire, "device": place, "build_model": functools.partial(network, rank),
        "loader": [(x, x[:, :1].sin()) for x in batches], "loss_of": lambda one, other: (one - other).square().mean(),
    }  # fmt: skip
    exec(script, names)
    return {"parameters": [host(param).clone() for param in names["model"].parameters()]}


def train_all(folder: str, transport: Transport) -> None:
    """Everything on the CPU, then on the pretended device."""
    rank = transport.rank
    os.chdir(folder)
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for train, methods in (
        (hooked, HOOKED),
        (synchronized, SYNCHRONIZED),
        (checkpointed, CHECKPOINTED),
        (scripted, SCRIPTED),
    ):
        for method in methods:
            plain = train(rank, method, torch.device("cpu"))
            with working():
                pretended = train(rank, method, DEVICE)
                found[f"{train.__name__} {method}"] = plain, pretended, list(ORDER.races)
    torch.save(found, Path(folder, f"rank-{rank}.pt"))
