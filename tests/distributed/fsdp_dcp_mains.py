"""What the processes of the test of a sharded model's checkpoints run: two by two save, other meshes load."""

from pathlib import Path
from typing import Any

import fsdp_mains as mains
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

import thinwire
from thinwire.distributed import ShardedGradients, Transport
from thinwire.distributed.sharded.dcp_state import dcp_state, load_dcp_state
from thinwire.errors import ConfigError

METHODS = ("topk:density=10%", "dgc:density=10%", "topk:density=10%,residual_dtype=bf16")


class Trainee:
    """A sharded model with all that belongs to it."""

    def __init__(self, method: str, mesh: DeviceMesh) -> None:
        self.mesh = mesh
        self.model: nn.Module = mains.shard(mains.network(), mesh["shard"])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.handle: ShardedGradients = thinwire.compress_fsdp(
            self.model, method, mesh=mesh, policy=mains.NOTHING_DENSE, seed=3
        )

    def train(self, first: int, last: int) -> None:
        for step in range(first, last):
            self.optimizer.zero_grad()
            mains.loss_of(self.model, step, dist.get_rank()).backward()
            self.optimizer.step()

    def save(self, folder: str) -> None:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        dcp.save({"m": model, "o": optimizer, **dcp_state(self.handle, self.mesh)}, checkpoint_id=folder)

    def load(self, folder: str) -> None:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        dcp.load({"m": model, "o": optimizer}, checkpoint_id=folder)
        set_state_dict(self.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)
        load_dcp_state(self.handle, self.mesh, folder)

    def memory(self) -> dict[str, Tensor]:
        """Of this replica, whole: from all its shards."""
        tensors, found = self.handle.state_dict()["tensors"], {}
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, list(tensors))
        for name in sorted({name for each in everyone for name in each}):
            param = self.handle.sharded.params[name.split(".", 2)[2]]
            assert isinstance(param, DTensor)
            spec = param.detach()
            assert isinstance(spec, DTensor)
            own = tensors[name].float() if name in tensors else torch.zeros_like(spec.to_local())
            found[name] = DTensor.from_local(
                own, spec.device_mesh, spec.placements, shape=spec.shape, stride=spec.stride()
            ).full_tensor()
        return found

    def whole_model(self) -> dict[str, Tensor]:
        return {name: mains.whole(param) for name, param in self.model.named_parameters()}


def all_meshes(folder: str, transport: Transport) -> None:
    found: dict[str, Any] = {}
    for number, method in enumerate(METHODS):
        trainee = Trainee(method, mains.meshes(2, 2))
        path = f"{folder}/dcp-{number}"
        trainee.train(0, 3)
        trainee.save(path)
        saved = {"memory": trainee.memory(), "model": trainee.whole_model(), "replica": transport.rank // 2}
        trainee.train(3, 5)
        found[method] = {"saved": saved, "end": trainee.whole_model(), "sent": trainee.handle.message_bytes}
        trainee.handle.close()
        for replicas, shards in ((2, 2), (1, 4), (4, 1)):
            other = Trainee(method, mains.meshes(replicas, shards))
            other.load(path)
            loaded = {
                "memory": other.memory(), "model": other.whole_model(), "num_steps": other.handle.num_steps,
                "replica": transport.rank // shards,
            }  # fmt: skip
            other.train(3, 5)
            found[method][f"{replicas}x{shards}"] = loaded | {
                "end": other.whole_model(), "sent": other.handle.message_bytes,
            }  # fmt: skip
            other.handle.close()
    found["refused"] = refused(f"{folder}/dcp-0", f"{folder}/other")
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))


def refused(path: str, other: str) -> list[str]:
    mesh = mains.meshes(2, 2)
    said = []
    for method, mesh_given, folder in (
        ("topk:density=20%", mesh, path), (METHODS[0], mesh["shard"], path), (METHODS[0], mesh, f"{path}-none"),
        (METHODS[0], mesh, other),
    ):  # fmt: skip
        trainee = Trainee(method, mesh)
        if folder == other:
            dcp.save({"epoch": torch.tensor(3)}, checkpoint_id=other)
        try:
            load_dcp_state(trainee.handle, mesh_given, folder)
        except ConfigError as error:
            said.append(str(error))
        trainee.handle.close()
    # PowerSGD keeps factors of a shard, which are of no use to another one.
    trainee = Trainee("powersgd:rank=1", mesh)
    trainee.train(0, 2)
    trainee.save(f"{path}-low")
    trainee.train(2, 3)
    end = mains.local(dict(trainee.model.named_parameters()))
    trainee.handle.close()
    again = Trainee("powersgd:rank=1", mesh)
    again.load(f"{path}-low")
    again.train(2, 3)
    assert all(torch.equal(end[name], each) for name, each in mains.local(dict(again.model.named_parameters())).items())
    again.handle.close()
    wide = Trainee("powersgd:rank=1", mains.meshes(4, 1))
    try:
        load_dcp_state(wide.handle, wide.mesh, f"{path}-low")
    except ConfigError as error:
        said.append(str(error))
    wide.handle.close()
    return said
