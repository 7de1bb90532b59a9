"""Models that a framework shards with FSDP2: who holds replicas of a shard, and how frameworks leave them alone."""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from thinwire.arrays import CPU
from thinwire.distributed.meeting import group_device
from thinwire.distributed.sharded.sharded_model import mesh_of
from thinwire.errors import ConfigError
from thinwire.worker.parameters import model_device

_MAKE_IT_HYBRID = (
    "Between replicas of a sharded model: ParallelismConfig(dp_replicate_size=..., dp_shard_size=...) with Accelerate "
    "or Transformers, ThinwireModelParallelStrategy(method, num_replicas=...) with Lightning, and where you call "
    'fully_shard yourself, fully_shard(layer, mesh=mesh["shard"]), over the shards\' dimension alone. Between shards '
    "there is thinwire.compress_shards(model, ...) instead"
)


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 shards the model, or a part of it."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # whoever has such a model has imported it
    return fsdp is not None and any(isinstance(module, fsdp.FSDPModule) for module in model.modules())


def replicas_beside(model: nn.Module) -> DeviceMesh:
    """The mesh of the processes that hold the same shard as this one; every process calls it.

    The processes that a model is spread over are an island. Those of the same place in the other islands hold
    replicas, whatever the framework calls its meshes.

    Args:
        model: as FSDP2 sharded it, over a part of the processes.

    Raises:
        ConfigError: the model lies on all processes, or the islands are not of one size.
    """
    meshes = {mesh for param in model.parameters() if (mesh := mesh_of(param)) is not None}
    ranks = max((mesh.mesh.flatten().tolist() for mesh in meshes), key=len)
    covered = {rank for mesh in meshes for rank in mesh.mesh.flatten().tolist()}
    islands = _everyones(ranks if covered == set(ranks) else [], model_device(model.parameters()))
    if [] in islands:
        raise ConfigError(
            "the model's parameters lie on several meshes, and none has all of its processes, so that nothing tells "
            f"where its replicas are. {_MAKE_IT_HYBRID}"
        )
    size = len(islands[0])
    if all(len(each) == dist.get_world_size() for each in islands):
        raise ConfigError(
            f"the model lies on all {size} processes: FSDP2 shards it over all of them, or averages its gradients over "
            f"replicas itself, in full. {_MAKE_IT_HYBRID}"
        )
    if any(len(each) != size for each in islands) or len(islands) * size != dist.get_world_size():
        raise ConfigError(
            f"the model is spread over the processes {islands}, which are no islands of one size with all of the "
            f"{dist.get_world_size()} processes. {_MAKE_IT_HYBRID}"
        )
    device = next(iter(meshes)).device_type
    places = torch.tensor(islands, dtype=torch.int64, device=CPU)
    return DeviceMesh(device, places, mesh_dim_names=("replicate", "shard"))["replicate"]


@contextmanager
def sharded_within_replicas(accelerator: Any) -> Iterator[None]:
    """Let Accelerate call ``fully_shard`` for each replica alone, where FSDP2 would average over replicas itself.

    Accelerate shards over what its ``ParallelismConfig`` says when a model is prepared. Inside the block that says
    nothing of replicas. The device mesh, by which loaders share out data, has them all the time.

    Args:
        accelerator: of Accelerate; one without replicas of a sharded model is left as it is.
    """
    state = accelerator.state
    config = accelerator.parallelism_config
    if config is None or not accelerator.is_fsdp2:
        yield
        return
    of_a_replica = copy.copy(config)
    of_a_replica.dp_replicate_size = 1
    state.parallelism_config = of_a_replica
    try:
        yield
    finally:
        state.parallelism_config = config


def _everyones(ranks: list[int], device: torch.device) -> list[list[int]]:
    """The islands that the processes tell of, each once, in the order of ranks."""
    size, everyone = dist.get_world_size(), dist.group.WORLD
    assert everyone is not None
    own = torch.full((size,), -1, dtype=torch.int64, device=group_device(everyone, device))
    own[: len(ranks)] = torch.tensor(ranks, dtype=torch.int64, device=CPU)
    told = [torch.empty_like(own) for _ in range(size)]
    dist.all_gather(told, own)
    found = dict.fromkeys(tuple(each[each >= 0].tolist()) for each in told)
    return [list(each) for each in found]
