"""Finds wrappers that send gradients, or hold shards, between the very processes that are to exchange."""

import gc
import sys

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from thinwire.errors import ConfigError


def check_not_averaged(model: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Refuse a model that DDP averages, or FSDP shards, over processes that are to exchange.

    DDP would send every gradient in full as well. Shards are different parameters, and their mean is none of them.

    Raises:
        ConfigError: DDP or FSDP over these processes, at any depth of the model or around it.
    """
    if not dist.is_initialized():
        return
    own = set(dist.get_process_group_ranks(group if group is not None else dist.group.WORLD))
    for wrapped in _data_parallel(model):
        both = own & set(dist.get_process_group_ranks(wrapped.process_group))
        if len(both) > 1:
            raise ConfigError(
                f"the model is wrapped in DistributedDataParallel, which sends full gradients between processes "
                f"{sorted(both)} at every step; give the model without DDP, or use thinwire.compress_ddp(model, ...)"
            )
    for name, ranks in _sharded(model):
        both = own & ranks
        if len(both) > 1:
            raise ConfigError(
                f"{name} is sharded over processes {sorted(both)}, which hold different parts of it and cannot average "
                "them with each other; shard within islands and give the mesh's replicate dimension, such as "
                'group=mesh["replicate"] of init_device_mesh("cpu", (2, 4), mesh_dim_names=("replicate", "shard"))'
            )


def _data_parallel(model: nn.Module) -> list[DistributedDataParallel]:
    """DDP within the model, or around one of its modules: of the latter nothing in the model tells."""
    modules = set(model.modules())
    within = [module for module in modules if isinstance(module, DistributedDataParallel)]
    if not _around(modules):
        return within
    gc.collect()  # one that nobody uses any more may not have gone yet
    return within + _around(modules)


def _around(modules: set[nn.Module]) -> list[DistributedDataParallel]:
    # By their types: to ask some objects for their class means to wake them.
    alive = [each for each in gc.get_objects() if issubclass(type(each), DistributedDataParallel)]
    return [each for each in alive if each not in modules and each.module in modules]


def _sharded(model: nn.Module) -> list[tuple[str, set[int]]]:
    """What is sharded, and among which processes."""
    found: list[tuple[str, set[int]]] = []
    tensors = sys.modules.get("torch.distributed.tensor")  # whoever has sharded tensors has imported it
    for name, param in model.named_parameters():
        if tensors is None or not isinstance(param, tensors.DTensor):
            continue
        mesh = param.device_mesh
        for place, dimension in zip(param.placements, range(mesh.ndim), strict=True):
            if not place.is_replicate():
                found.append((f"parameter {name!r}", set(dist.get_process_group_ranks(mesh.get_group(dimension)))))
    older = sys.modules.get("torch.distributed.fsdp")
    for module in model.modules():
        if older is not None and isinstance(module, older.FullyShardedDataParallel):
            ranks = set(dist.get_process_group_ranks(module.process_group))
            found.append(("the model (FullyShardedDataParallel)", ranks))
    return found
