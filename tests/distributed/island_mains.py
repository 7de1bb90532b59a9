"""What the processes of the tests of islands run: two islands of two processes."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import Transport
from thinwire.distributed.checkpoint_parts import Stateful
from thinwire.errors import ConfigError

STEPS = 6
METHODS = ("sgd", "aji-heafield:density=10%", "signtopk:density=10%,every=3")
KINDS = ("fsdp", "ddp")


def network() -> nn.Module:
    """Widths that two processes cannot share evenly."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 21), nn.Tanh(), nn.Linear(21, 3))


def loss_of(model: nn.Module, step: int, place: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * step + place)
    x = torch.randn(8, 6, generator=generator)
    loss: Tensor = (model(x) - x[:, :3].sin()).square().mean()
    return loss


def whole(tensor: Tensor) -> Tensor:
    found: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found.detach().clone()


def train_all(folder: str, transport: Transport) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    found: dict[str, Any] = {f"{kind} {method}": train(kind, method, mesh) for kind in KINDS for method in METHODS}
    found["refused"] = refused(mesh)
    found["resumed"] = {kind: resumed(kind, mesh, f"{folder}/{kind}") for kind in KINDS}
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))


def made(kind: str, mesh: Any) -> tuple[nn.Module, nn.Module]:
    """A model, and what is called to train it within an island."""
    model = network()
    if kind == "fsdp":
        for layer in (*map(model.get_submodule, ("0", "2")), model):
            fully_shard(layer, mesh=mesh["shard"])
        return model, model
    return model, DistributedDataParallel(model, process_group=mesh["shard"].get_group())


def resumed(kind: str, mesh: Any, folder: str) -> list[dict[str, Tensor]]:
    """The parameters at the end of a run that was not interrupted, and of one that began again at step 4."""
    ends = []
    for cut in (False, True):
        model, called = made(kind, mesh)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
        with thinwire.synchronize(optimizer, model, METHODS[-1], group=mesh["replicate"]) as sync:
            parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "thinwire": sync}
            checkpoints = thinwire.Checkpoints(folder, parts)
            if cut:
                loss_of(called, 0, dist.get_rank()).backward()
                optimizer.step()  # an optimizer that has state takes over a saved one of sharded tensors
            for step in range(checkpoints.load() or 0, STEPS):
                optimizer.zero_grad()
                loss_of(called, step, dist.get_rank()).backward()
                optimizer.step()
                if step + 1 == 4:
                    checkpoints.save(step + 1)
            ends.append({name: whole(param) for name, param in model.named_parameters()})
    return ends


def train(kind: str, method: str, mesh: Any) -> dict[str, Any]:
    model, called = made(kind, mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5)
    with thinwire.synchronize(optimizer, model, method, group=mesh["replicate"]) as sync:
        for step in range(STEPS):
            optimizer.zero_grad()
            loss_of(called, step, dist.get_rank()).backward()
            optimizer.step()
        numel = sum(tensor.numel() for tensor in sync.shared_parameters().values())
        with sync.shared_model():
            params = {name: whole(param) for name, param in model.named_parameters()}
        return {"params": params, "message_bytes": sync.message_bytes, "numel": numel}


def refused(mesh: Any) -> list[str]:
    messages = []
    model = network()
    fully_shard(model, mesh=mesh["shard"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for method, group in (("sgd", mesh), ("dgc:clip=1", mesh["replicate"])):
        try:
            thinwire.synchronize(optimizer, model, method, group=group)
        except ConfigError as error:
            messages.append(str(error))
    return messages
