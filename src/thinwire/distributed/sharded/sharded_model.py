"""A model that FSDP2 shards: its parameters by name, and which processes hold replicas of a shard."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from thinwire.distributed.averaged import check_not_averaged
from thinwire.distributed.guard import take_first
from thinwire.distributed.meeting import group_device
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.worker.parameters import check_device, local_part, model_device, named_parameters, plain_name

_SHARD_IT = (
    'shard it within islands, fully_shard(layer, mesh=mesh["shard"]) for each layer and the model, and give the '
    'mesh\'s other dimension here, mesh=mesh["replicate"]'
)


@dataclass(frozen=True, slots=True, eq=False)
class ShardedModel:
    """The sharded parameters of a model, made by :meth:`of` while all of them are sharded.

    Args:
        module: the whole model.
        layers: what ``fully_shard`` was called with, by name.
        params: every parameter by name, in the model's order; during forward and backward the model itself has
            others, which are whole.
    """

    module: nn.Module
    layers: Mapping[str, Any]
    params: Mapping[str, nn.Parameter]

    @staticmethod
    def of(model: object) -> "ShardedModel":
        """The parts of a model.

        Raises:
            ConfigError: it is none that FSDP2 shards, or a parameter that is trained is not sharded, or in a way that
                has no gradient of its own on each process.
        """
        layers = layers_of(model)
        assert isinstance(model, nn.Module)
        for layer in layers.values():
            layer.reshard()
        params = named_parameters(model)
        _check_params(params)
        return ShardedModel(model, layers, params)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that need gradients now."""
        return {name: param for name, param in self.params.items() if param.requires_grad}

    def own_of(self, layer: str) -> list[str]:
        """The parameters that ``fully_shard`` of this layer sharded: those that no layer within it did."""
        within = self.layers[layer]
        inner = [each for each in self.layers.values() if each is not within and each in set(within.modules())]
        taken = {id(param) for each in inner for param in each.parameters()}
        mine = {id(param) for param in within.parameters()} - taken
        return [name for name, param in self.params.items() if id(param) in mine]

    def named(self) -> Mapping[str, Tensor]:
        """What replicas have in common: the local part of every parameter."""
        return {name: local_part(param.detach()) for name, param in self.params.items()}

    def take_over(self, transport: Transport) -> None:
        """Every parameter of the first replica."""
        take_first(transport, list(self.named().values()))

    def any_shard(self, flag: bool) -> bool:
        """Whether the flag is set on any process that holds a part of this replica; all of them ask."""
        for group in self._groups():
            told = torch.tensor(
                [flag], dtype=torch.int32, device=group_device(group, model_device(self.params.values()))
            )
            dist.all_reduce(told, op=dist.ReduceOp.MAX, group=group)
            flag = bool(told.item())
        return flag

    def _groups(self) -> Iterator[dist.ProcessGroup]:
        """One after the other they reach all processes that hold a part of this replica."""
        meshes = dict.fromkeys(mesh for param in self.params.values() if (mesh := mesh_of(param)) is not None)
        return iter([mesh.get_group(number) for mesh in meshes for number in range(mesh.ndim) if mesh.size(number) > 1])


def layers_of(model: object) -> dict[str, Any]:
    """What ``fully_shard`` was called with, by name.

    Raises:
        ConfigError: nothing, or the model is none.
    """
    from torch.distributed.fsdp import FSDPModule  # those that use it have it; for others it would take a second

    if not isinstance(model, nn.Module):
        raise ConfigError(f"a {type(model).__name__} was given as the model; give the one that fully_shard was given")
    layers: dict[str, Any] = {name: each for name, each in model.named_modules() if isinstance(each, FSDPModule)}
    if not layers:
        raise ConfigError(
            f"{type(model).__name__} is not sharded by FSDP2; {_SHARD_IT}. For a model in DistributedDataParallel "
            "there is thinwire.compress_ddp, for a plain one thinwire.synchronize"
        )
    if any(getattr(each, "set_all_reduce_hook", None) is None for each in layers.values()):
        raise ConfigError(
            f"FSDP2 of torch {torch.__version__} has no set_all_reduce_hook, by which gradients are taken over; "
            "install a newer torch, or use thinwire.synchronize"
        )
    return layers


def mesh_of(param: Tensor) -> DeviceMesh | None:
    """The mesh that a parameter is sharded over."""
    found: DeviceMesh | None = getattr(param, "device_mesh", None)
    return found


def is_repeated(param: Tensor) -> bool:
    """Whether several processes of a replica hold the same numbers of it, as norms under tensor parallelism."""
    placements = getattr(param, "placements", ())
    mesh = mesh_of(param)
    return mesh is not None and any(
        place.is_replicate() and mesh.size(number) > 1 for number, place in enumerate(placements)
    )


def replicas_of(mesh: object, model: ShardedModel) -> dist.ProcessGroup:
    """The processes that hold replicas of this process's shard.

    Raises:
        ConfigError: a mesh that does not say so, or over which the model is sharded or averaged already.
    """
    if not isinstance(mesh, DeviceMesh):
        raise ConfigError(
            f'a {type(mesh).__name__} was given as mesh; give one dimension of a device mesh, such as mesh["replicate"]'
        )
    used = {name for param in model.params.values() for name in (_names(mesh_of(param)))}
    if mesh.ndim > 1:
        free = [name for name in _names(mesh) if name not in used]
        if len(free) != 1:
            raise ConfigError(
                f"a mesh of the dimensions {mesh.mesh_dim_names} was given, and the model lies on "
                f"{sorted(used) or 'a mesh without names'}, so that {len(free)} are left to hold replicas, where there "
                f"must be one: {_SHARD_IT}"
            )
        mesh = mesh[free[0]]
    group = mesh.get_group()
    check_not_averaged(model.module, group)
    own = set(dist.get_process_group_ranks(group))
    for name, param in model.params.items():
        lies_on = mesh_of(param)
        ranks = set() if lies_on is None else set(lies_on.mesh.flatten().tolist())
        if len(own & ranks) > 1:
            raise ConfigError(
                f"parameter {name!r} lies on the processes {sorted(own & ranks)}, over which FSDP2 itself averages its "
                f"gradient, in full: {_SHARD_IT}"
            )
    return group


def _names(mesh: DeviceMesh | None) -> tuple[str, ...]:
    return () if mesh is None else tuple(mesh.mesh_dim_names or ())


def _check_params(params: Mapping[str, nn.Parameter]) -> None:
    trained = {name: param for name, param in params.items() if param.requires_grad}
    if not trained:
        raise ConfigError("no parameter of the model needs a gradient; there is nothing to exchange")
    for name, param in trained.items():
        placements = getattr(param, "placements", None)
        if placements is None:
            raise ConfigError(
                f"parameter {name!r} is trained and not sharded (fully_shard was told to ignore it, or was not called "
                "with the module that has it), so that nobody would average its gradient; shard it or freeze it"
            )
        if any(place.is_partial() for place in placements):
            raise ConfigError(
                f"parameter {name!r} is placed as {placements}: what is partial is a summand, whose compressed mean is "
                "none of a parameter; redistribute it to Replicate() or Shard(...) before"
            )
        if not param.dtype.is_floating_point:
            raise ConfigError(f"parameter {name!r} is {param.dtype}; only gradients of floating point are exchanged")
    check_device({name: local_part(param) for name, param in trained.items()})


def refuse_sparse(model: nn.Module) -> None:
    """Raise :class:`ConfigError` if an embedding makes sparse gradients."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            raise ConfigError(f"{plain_name(name)} is an embedding with sparse=True; make it with sparse=False")


def shared_out(names: Iterable[str], params: Mapping[str, Tensor]) -> list[list[str]]:
    """Names in groups whose messages must not mix: what several processes of a replica hold gets one of its own.

    So these see the same numbers in one message, and decide alike.
    """
    groups: dict[bool, list[str]] = {}
    for name in names:
        groups.setdefault(is_repeated(params[name]), []).append(name)
    return list(groups.values())
