"""What the processes of the tests of sharded models run: replicas of shards, two by two."""

import functools
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

import thinwire
from thinwire.distributed import DensePolicy, ShardedGradients, Transport

STEPS, CUT = 5, 2
NOTHING_DENSE = DensePolicy(vectors=False, embeddings=False, below=0)


@dataclass(frozen=True)
class Setting:
    """One training of all processes; without a method FSDP2 averages over replicas itself."""

    method: str | None
    kind: str = "plain"
    """How the model is used: plain, twice in a forward, recomputed, partly frozen, or compressed between shards too."""
    accumulate: int = 1
    syncs: bool = False
    """Whether gradients are reduced in every part of an accumulated step."""
    clip: float | None = None
    policy: DensePolicy = NOTHING_DENSE
    precision: MixedPrecisionPolicy = field(default_factory=MixedPrecisionPolicy)
    cut: bool = False
    skipped: int | None = None
    """The step whose gradients are thrown away."""


EQUAL = {
    "plain": Setting("sgd"),
    "accumulated": Setting("sgd", accumulate=3),
    "accumulated in .grad": Setting("sgd", accumulate=3, syncs=True),
    "clipped": Setting("sgd", clip=0.05),
    "twice": Setting("sgd", kind="twice"),
    "recomputed": Setting("sgd", kind="recomputed"),
    "left out": Setting("sgd", kind="left out"),
    "between shards too": Setting("sgd", kind="between shards too"),
    "reduced in f32": Setting("sgd", precision=MixedPrecisionPolicy(torch.bfloat16, torch.float32)),
}
"""Without compression these have the bits of FSDP2's own averaging."""

SIMULATED = {
    "topk": Setting("topk:density=5%"),
    "signtopk": Setting("signtopk:density=10%", accumulate=2),
    "server": Setting("ef-signsgd:exchange=server"),
    "dgc": Setting("dgc:density=5%"),
    "cut": Setting("topk:density=5%", cut=True),
    "cut 1bit": Setting("1bit-sgd", cut=True),
    "cut qsgd": Setting("qsgd:bits=4", cut=True),
    "1bit": Setting("1bit-sgd"),
    "qsgd": Setting("qsgd:bits=4"),
    "skipped": Setting("topk:density=5%", skipped=2),
    "policy": Setting("topk:density=5%", policy=DensePolicy(below=0)),
    "powersgd": Setting("powersgd:rank=1"),
    "bf16": Setting("topk:density=5%", precision=MixedPrecisionPolicy(torch.bfloat16)),
    "twice topk": Setting("topk:density=5%", kind="twice"),
}


def network() -> nn.Sequential:
    """Widths that two processes cannot share evenly, and a vector of which one of them has nothing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 21), nn.Tanh(), nn.Linear(21, 21), nn.Tanh(), nn.Linear(21, 1))


def meshes(replicas: int, shards: int) -> DeviceMesh:
    return init_device_mesh("cpu", (replicas, shards), mesh_dim_names=("replicate", "shard"))


def shard(model: nn.Sequential, mesh: DeviceMesh, precision: MixedPrecisionPolicy | None = None) -> nn.Sequential:
    policy = precision or MixedPrecisionPolicy()
    for layer in (model[0], model[2], model[4], model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    return model


def loss_of(run: Callable[[Tensor], Tensor], step: int, place: int, part: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + 10 * place + part)
    x = torch.randn(8, 6, generator=generator)
    loss: Tensor = (run(x).float() - x[:, :1].sin()).square().mean()
    return loss


def runner(model: nn.Sequential, kind: str, step: int) -> Callable[[Tensor], Tensor]:
    if kind == "twice":
        return lambda x: model(x) + model(0.5 * x)
    if kind == "recomputed":
        return functools.partial(checkpoint, model, use_reentrant=False)
    return model


def whole(tensor: Tensor) -> Tensor:
    found: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found.detach().clone()


def local(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: (t.to_local() if isinstance(t, DTensor) else t).detach().clone() for n, t in tensors.items()}


def made(setting: Setting, mesh: DeviceMesh) -> tuple[Any, torch.optim.Optimizer, ShardedGradients | None]:
    model = network()
    if setting.kind == "left out":
        model[2].weight.requires_grad_(False)
    shard(model, mesh if setting.method is None else mesh["shard"], setting.precision)
    handle = None
    if setting.method is not None:
        handle = thinwire.compress_fsdp(model, setting.method, mesh=mesh, policy=setting.policy, seed=5)
        if setting.kind == "between shards too":
            thinwire.compress_shards(model, gradients="sgd")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    return model, optimizer, handle


def train(setting: Setting, mesh: DeviceMesh) -> dict[str, Any]:
    model, optimizer, handle = made(setting, mesh)
    memories: list[Any] = []
    for step in range(STEPS):
        if setting.cut and step == CUT and handle is not None:
            file = io.BytesIO()
            torch.save({"m": local(model.state_dict()), "h": handle.state_dict(), "o": optimizer.state_dict()}, file)
            handle.close()
            saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            model, optimizer, handle = made(setting, mesh)
            with torch.no_grad():
                for name, param in model.named_parameters():
                    assert isinstance(param, DTensor)
                    param.to_local().copy_(saved["m"][name])
            assert handle is not None
            handle.load_state_dict(saved["h"])
            optimizer.load_state_dict(saved["o"])
        optimizer.zero_grad()
        run = runner(model, setting.kind, step)
        for part in range(setting.accumulate):
            model.set_requires_gradient_sync(setting.syncs or part == setting.accumulate - 1)
            model.set_is_last_backward(part == setting.accumulate - 1)
            loss_of(run, step, dist.get_rank(), part).backward()
        if setting.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), setting.clip)
        if step != setting.skipped:
            optimizer.step()
        if handle is not None and step + 1 < STEPS:
            optimizer.zero_grad()
            memories.append({"num_steps": handle.num_steps, "tensors": handle.state_dict()["tensors"]})
    counts = []
    if handle is not None:
        counts = [handle.message_bytes, handle.traffic.bytes_sent, handle.traffic.bytes_received]
        handle.close()
    return {"model": local(dict(model.named_parameters())), "memories": memories, "counts": counts}


def train_all(folder: str, transport: Transport) -> None:
    mesh = meshes(2, 2)
    found: dict[str, Any] = {}
    for name, setting in EQUAL.items():
        found[f"own {name}"] = train(Setting(**{**vars(setting), "method": None}), mesh)
        found[name] = train(setting, mesh)
    for name, setting in SIMULATED.items():
        found[name] = train(setting, mesh)
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))
