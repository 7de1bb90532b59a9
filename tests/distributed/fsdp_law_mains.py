"""What the processes of the tests of sharded models run that go beyond a training: failures, refusals, other meshes."""

from pathlib import Path
from typing import Any

import fsdp_mains as mains
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.checkpoint import checkpoint

import thinwire
from thinwire.distributed import ShardedGradients, Transport
from thinwire.errors import ConfigError, NumericsError


def all_laws(folder: str, transport: Transport) -> None:
    mesh = mains.meshes(2, 2)
    found = {
        "poisoned": poisoned(mesh),
        "scaled": scaled(mesh),
        "conserved": conserved(mesh),
        "refused": refused(mesh),
        "tensor parallel": tensor_parallel(),
        "guarded": guarded(mesh),
        "one bf16 step": one_step_in_bf16(mesh),
        "no replicas": no_replicas(),
    }
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))


def made(mesh: DeviceMesh, method: str = "topk:density=10%", **more: Any) -> tuple[Any, ShardedGradients]:
    model = mains.shard(mains.network(), mesh["shard"])
    return model, thinwire.compress_fsdp(model, method, mesh=mesh, policy=mains.NOTHING_DENSE, **more)


def backward(model: nn.Module, step: int, factor: float = 1.0) -> None:
    (factor * mains.loss_of(model, step, dist.get_rank())).backward()


def memory_of(handle: ShardedGradients) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in handle.state_dict()["tensors"].items() if name.startswith("memory.")}


def poisoned(mesh: DeviceMesh) -> dict[str, Any]:
    """One process has a gradient that is not finite in one layer; all must hear of it, and go on."""
    model, handle = made(mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said = ""
    states = []
    for step in range(4):
        optimizer.zero_grad()
        try:
            if step == 2 and dist.get_rank() == 3:
                # Only of the shard of the first two processes of each replica: others must hear of it from them.
                model[0].register_full_backward_pre_hook(poison)
            backward(model, step)
            optimizer.step()
        except NumericsError as error:
            said = str(error)
        states.append({"memory": memory_of(handle), "num_steps": handle.num_steps})
    handle.close()
    return {"said": said, "states": states, "model": mains.local(dict(model.named_parameters()))}


def poison(layer: nn.Module, grads: Any) -> Any:
    """Let the first row of the layer's weight have a gradient that is not finite."""
    spoilt = grads[0].clone()
    spoilt[:, 0] = torch.inf
    layer._backward_pre_hooks.clear()
    return (spoilt,)


class Scaler:
    """A loss scale that is another power of two at every step."""

    scale = 1.0
    num_asked = 0

    def get_scale(self) -> float:
        self.num_asked += 1
        return self.scale

    def check_asked(self, count: int) -> None:
        """Once a step, not once a bucket: a scaler on a device waits for it."""
        assert self.num_asked == count
        self.num_asked = 0


def scaled(mesh: DeviceMesh) -> list[dict[str, Tensor]]:
    """The memories with scaled losses, and without."""
    found = []
    for is_scaled in (True, False):
        scaler = Scaler()
        model, handle = made(mesh, scaler=scaler if is_scaled else None)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            optimizer.zero_grad()
            scaler.scale = 2.0 ** (step + 3) if is_scaled else 1.0
            backward(model, step, scaler.scale)
            scaler.check_asked(int(is_scaled))
            for param in model.parameters():
                param.grad /= scaler.scale
            optimizer.step()
        found.append({**memory_of(handle), **mains.local(dict(model.named_parameters()))})
        handle.close()
    return found


def conserved(mesh: DeviceMesh) -> dict[str, Any]:
    """Sums over five steps with a fixed model: what was applied, and what each process had of its own."""
    dense, plain = made(mesh, "sgd")
    own: dict[str, Tensor] = {}
    for step in range(5):
        backward(dense, step)  # gradients add up in .grad
    own = {name: param.grad.to_local().clone() for name, param in dense.named_parameters()}
    plain.close()
    model, handle = made(mesh, "topk:density=10%")
    for step in range(5):
        backward(model, step)
    applied = {name: param.grad.to_local().clone() for name, param in model.named_parameters()}
    torch.optim.SGD(model.parameters(), lr=0.0).step()
    memory = memory_of(handle)
    num_steps = handle.num_steps
    handle.close()
    return {"own": own, "applied": applied, "memory": memory, "num_steps": num_steps}


class Scale(nn.Module):
    """Weights of which every process of a replica holds all."""

    def __init__(self, mesh: DeviceMesh) -> None:
        super().__init__()
        self.weight = nn.Parameter(distribute_tensor(torch.ones(6, 6) + torch.eye(6), mesh, [Replicate()]))

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.weight, DTensor)
        found: Tensor = x @ self.weight.to_local()
        return found


def tensor_parallel() -> dict[str, Any]:
    """Replicas of a model that is sharded over one dimension and tensor-parallel over another."""
    mesh = init_device_mesh("cpu", (2, 1, 2), mesh_dim_names=("replicate", "shard", "tensor"))
    found = {}
    for method in (None, "sgd", "topk:density=10%", "qsgd:bits=4,granularity=7"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 22), nn.Tanh(), nn.Linear(22, 6), Scale(mesh["tensor"]))
        parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        fully_shard(model, mesh=mesh["replicate", "shard"] if method is None else mesh["shard"])
        handle = None
        if method is not None:
            handle = thinwire.compress_fsdp(model, method, mesh=mesh["replicate"], policy=mains.NOTHING_DENSE)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(10 * step + mesh.get_local_rank(0))
            model(torch.randn(8, 6, generator=generator)).square().mean().backward()
            optimizer.step()
        found[str(method)] = mains.local(dict(model.named_parameters()))
        if handle is not None:
            handle.close()
    return found


def guarded(mesh: DeviceMesh) -> str:
    """One replica's shard is written by nobody else."""
    model, handle = made(mesh, guard=thinwire.ReplicaGuard(every=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        for step in range(3):
            optimizer.zero_grad()
            backward(model, step)
            optimizer.step()
            if step == 1 and dist.get_rank() < 2:
                with torch.no_grad():
                    model[2].weight.to_local()[0, 0] += 1.0
    except thinwire.DivergenceError as error:
        return str(error)
    finally:
        handle.close()
    return ""


def one_step_in_bf16(mesh: DeviceMesh) -> dict[str, Any]:
    """The gradients of a first step where FSDP2 reduces in bf16: its own, and ours."""
    precision = mains.SIMULATED["bf16"].precision
    found = {}
    for name, method in (("own", None), ("ours", "sgd")):
        model, _, handle = mains.made(mains.Setting(method, precision=precision), mesh)
        mains.loss_of(model, 0, dist.get_rank()).backward()
        found[name] = {key: param.grad.to_local().clone() for key, param in model.named_parameters()}
        if handle is not None:
            handle.close()
    return found


def no_replicas() -> int:
    """A mesh of one replica, whose exchange is with nobody."""
    mesh = mains.meshes(1, 4)
    model, handle = made(mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    backward(model, 0)
    optimizer.step()
    sent = handle.traffic.bytes_sent
    handle.close()
    return sent


def refused(mesh: DeviceMesh) -> dict[str, str]:
    shard, replicate = mesh["shard"], mesh["replicate"]

    def sharded(over: Any = shard) -> nn.Sequential:
        return mains.shard(mains.network(), over)

    def with_ignored() -> Any:
        model: Any = mains.network()
        return fully_shard(model, mesh=shard, ignored_params={model[0].weight})

    def with_partial() -> Any:
        model: Any = mains.network()
        partial = DTensor.from_local(torch.ones(3), shard, [Partial()])
        fully_shard(model, mesh=shard)
        model.partial = nn.Parameter(partial)
        return model

    def hooked() -> Any:
        model: Any = sharded()
        model[0].weight.register_post_accumulate_grad_hook(lambda param: None)
        return model

    def frozen() -> nn.Module:
        return sharded().requires_grad_(False)

    cases: dict[str, tuple[Any, Any, Any]] = {
        "plain": (mains.network, "sgd", replicate),
        "optimizer": (lambda: torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), "sgd", replicate),
        "hybrid": (lambda: sharded(mesh), "sgd", replicate),
        "hybrid, whole mesh": (lambda: sharded(mesh), "sgd", mesh),
        "shards": (sharded, "sgd", shard),
        "no mesh": (sharded, "sgd", "replicate"),
        "local steps": (sharded, "topk:density=1%,every=4", replicate),
        "consensus": (sharded, "choco", replicate),
        "server": (sharded, "easgd-async", replicate),
        "clip": (sharded, "dgc:clip=1", replicate),
        "no method": (sharded, 3, replicate),
        "ignored": (with_ignored, "sgd", replicate),
        "partial": (with_partial, "sgd", replicate),
        "hooked": (hooked, "sgd", replicate),
        "frozen": (frozen, "sgd", replicate),
    }
    said = {}
    for name, (model, method, over) in cases.items():
        said[name] = message_of(lambda model=model, method=method, over=over: thinwire.compress_fsdp(
            model(), method, mesh=over
        ))  # fmt: skip
    model, handle = made(mesh)
    said["second"] = message_of(lambda: thinwire.compress_fsdp(model, "sgd", mesh=replicate))
    said["reentrant"] = message_of(lambda: checkpointed(model).backward())
    handle.close()
    model, handle = made(mesh)
    handle.close()
    said["closed"] = message_of(lambda: backward(model, 0))
    thinwire.compress_fsdp(model, "sgd", mesh=replicate).close()
    model, handle = made(mesh)
    said["outside"] = message_of(handle.layer_begins)
    handle.close()
    model = sharded()
    method = "topk:density=1%" if mesh.get_local_rank("replicate") else "topk:density=2%"
    said["disagreeing"] = message_of(lambda: thinwire.compress_fsdp(model, method, mesh=replicate))
    chosen: Any = fully_shard(Choosing(6, 6), mesh=shard)
    handle = thinwire.compress_fsdp(chosen, "topk:density=1%", mesh=replicate)
    uses = "bias" if mesh.get_local_rank("replicate") else "weight"
    said["unlike"] = message_of(lambda: chosen(torch.ones(1, 6), uses).sum().backward())
    handle.close()
    return said


class Choosing(nn.Linear):
    """Uses one of its parameters, and leaves the other without a gradient."""

    def forward(self, x: Tensor, uses: str = "weight") -> Tensor:
        return x @ self.weight.T if uses == "weight" else x + self.bias


def checkpointed(model: Any) -> Tensor:
    x = torch.ones(2, 6, requires_grad=True)
    found: Tensor = checkpoint(lambda x: model[0](x), x, use_reentrant=True)
    return found.sum()


def message_of(call: Any) -> str:
    try:
        call()
    except ConfigError as error:
        return str(error)
    return ""
