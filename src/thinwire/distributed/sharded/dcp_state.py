"""What replicas of a sharded model remember, in a checkpoint of torch.distributed.checkpoint, for any mesh.

A memory is saved as one tensor with the replicas as its first dimension, sharded as its parameter is. So torch finds
the part that a process needs, however many processes there are and however they share the model out.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.storage import StorageReader
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from thinwire.arrays import CPU
from thinwire.distributed.buckets import parameter_of
from thinwire.distributed.dcp import open_checkpoint, read_alone
from thinwire.distributed.sharded.handle import ShardedGradients
from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.steps import bytes_of, text_of
from thinwire.worker.exchange_runner import check_same
from thinwire.worker.parameters import local_part
from thinwire.worker.resize import conserve_mean, no_meaning

_PREFIX = "thinwire.sharded."
_COMMON, _COUNTS = _PREFIX + "common", _PREFIX + "counts"
_CUTS, _OWN = _PREFIX + "cuts.", _PREFIX + "own."
"""Before what belongs to the shard of one process as a whole: how it is cut, and what is kept of a cut."""

_NUM_COUNTS = 3


def dcp_state(handle: ShardedGradients, mesh: DeviceMesh) -> dict[str, Tensor]:
    """What :func:`torch.distributed.checkpoint.save` is to save of a handle beside the state of model and optimizer.

    A handle's own ``state_dict`` has tensors of one name on all processes, which torch would take for the same.

    Args:
        handle: of :func:`thinwire.compress_fsdp`.
        mesh: of two dimensions, replicas and shards, as ``init_device_mesh`` made it.

    Raises:
        ConfigError: another mesh, or a parameter that is sharded by more than one dimension.

    Example::

        dcp.save({"model": ..., "optimizer": ..., **dcp_state(handle, mesh)}, checkpoint_id="runs/a/step-100")
    """
    _check_mesh(handle, mesh)
    state = handle.state_dict()
    counters = state["counters"]
    common = {name: counters[name] for name in ("method", "seed", "num_steps")}
    counts = torch.tensor([counters["message_bytes"], *counters["link"]], dtype=torch.int64, device=CPU)
    shape = torch.Size([*mesh.shape, _NUM_COUNTS])
    found: dict[str, Tensor] = {
        _COMMON: bytes_of(json.dumps(common)),
        _COUNTS: _placed(counts.view(1, 1, -1), mesh, (Shard(0), Shard(1)), shape),
        _of_place(_CUTS, mesh): bytes_of(json.dumps(counters["buckets"])),
    }
    for name, tensor in state["tensors"].items():
        param = _param_of(handle, name, tensor)
        if param is None:
            found[_of_place(_OWN, mesh) + name] = tensor
        else:
            on_device = tensor.to(mesh.device_type).unsqueeze(0)
            shape = torch.Size([mesh.size(0), *param.shape])
            found[_PREFIX + name] = _placed(on_device, mesh, (Shard(0), _shifted(param)), shape)
    return found


def load_dcp_state(
    handle: ShardedGradients, mesh: DeviceMesh, checkpoint_id: StrPath | None = None, *,
    reader: StorageReader | None = None,
) -> None:  # fmt: skip
    """Put back what :func:`dcp_state` gave, on the same mesh or another; load model and optimizer beside it.

    On another mesh the replicas share what the saved ones owed the model, by the rule of
    :func:`thinwire.worker.resize.resized`: ``1/Q sum_q m'_q = 1/P sum_p m_p``, entry by entry, wherever an entry lies.

    Args:
        handle: of :func:`thinwire.compress_fsdp`, with the method and seed that were saved.
        mesh: of two dimensions, replicas and shards.
        checkpoint_id: the folder that was saved to.
        reader: where to read from, if not from a folder.

    Raises:
        ConfigError: no such checkpoint, nothing of a sharded model in it, a state of another training, or one that
            belongs to the shards as they were.
    """
    _check_mesh(handle, mesh)
    source, described = open_checkpoint(checkpoint_id, reader)
    sizes = {name: each.size for name, each in described.items() if name.startswith(_PREFIX)}
    if _COMMON not in sizes:
        raise ConfigError(
            f"the checkpoint has nothing of compress_fsdp, only {', '.join(sorted(described)[:5])}; save "
            "dcp_state(handle, mesh) beside the rest"
        )
    was = tuple(sizes[_COUNTS][:2])
    is_same = was == tuple(mesh.shape)
    wanted: dict[str, Tensor] = {
        _COMMON: torch.empty(sizes[_COMMON], dtype=torch.uint8, device=CPU),
        _COUNTS: torch.empty(sizes[_COUNTS], dtype=torch.int64, device=CPU),
    }
    for name in sizes.keys() - wanted.keys():
        dtype = described[name].properties.dtype
        if name.startswith(_OWN) and not is_same:
            raise no_meaning(name.removeprefix(_OWN), was[0])
        if name.startswith((_OWN, _CUTS)):
            if is_same and name.startswith((_of_place(_OWN, mesh), _of_place(_CUTS, mesh))):
                wanted[name] = torch.empty(sizes[name], dtype=dtype, device=CPU)
        else:
            wanted[name] = _room(handle, mesh, name.removeprefix(_PREFIX), sizes[name], dtype)
    read_alone(wanted, source)
    handle.load_state_dict({"counters": _counters(handle, mesh, wanted), "tensors": _tensors(mesh, wanted)})


def _of_place(prefix: str, mesh: DeviceMesh) -> str:
    return f"{prefix}{mesh.get_local_rank(0):05d}.{mesh.get_local_rank(1):05d}."


def _tensors(mesh: DeviceMesh, loaded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What this process's handle is to remember."""
    found, own = {}, _of_place(_OWN, mesh)
    for name, tensor in loaded.items():
        if name.startswith(own):
            found[name.removeprefix(own)] = tensor
        elif name not in (_COMMON, _COUNTS) and not name.startswith(_CUTS):
            found[name.removeprefix(_PREFIX)] = _of_replica(name, local_part(tensor), mesh)
    return found


def _counters(handle: ShardedGradients, mesh: DeviceMesh, loaded: Mapping[str, Tensor]) -> dict[str, Any]:
    common = json.loads(text_of(loaded[_COMMON]))
    own = handle.state_dict()["counters"]
    check_same(common, {name: own[name] for name in ("method", "seed")}, "handle")
    replica, shard = mesh.get_local_rank(0), mesh.get_local_rank(1)
    counts = loaded[_COUNTS]
    is_known = replica < counts.shape[0] and shard < counts.shape[1]
    sent, *link = counts[replica, shard].tolist() if is_known else [0] * _NUM_COUNTS
    cuts = loaded.get(_of_place(_CUTS, mesh))  # of other shards each layer is cut as it comes
    buckets = [] if cuts is None else json.loads(text_of(cuts))
    return {**own, "num_steps": common["num_steps"], "buckets": buckets, "message_bytes": sent, "link": link}


def _of_replica(name: str, parts: Tensor, mesh: DeviceMesh) -> Tensor:
    """This replica's part of what all that were saved had."""
    kind, replica = name.removeprefix(_PREFIX), mesh.get_local_rank(0)
    if parts.shape[0] == mesh.size(0):
        return parts[replica].cpu()
    if kind.startswith("memory."):
        return conserve_mean(list(parts.cpu()), replica, mesh.size(0))
    if not all(torch.equal(part, parts[0]) for part in parts):
        raise no_meaning(kind, parts.shape[0])
    return parts[0].cpu()


def _room(handle: ShardedGradients, mesh: DeviceMesh, name: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
    """Where this process's shard of all replicas' tensors is read to."""
    param = handle.sharded.params.get(parameter_of(name))
    if param is None or torch.Size(size[1:]) != param.shape:
        raise ConfigError(
            f"the checkpoint has {name!r} of {tuple(size[1:])}, and this model has "
            f"{'no such parameter' if param is None else f'{tuple(param.shape)}'}"
        )
    local = local_part(param.detach())
    room = torch.empty((size[0], *local.shape), dtype=dtype, device=mesh.device_type)
    return _placed(room, mesh, (Replicate(), _shifted(param)), size)


def _placed(local: Tensor, mesh: DeviceMesh, placements: tuple[Any, Any], shape: torch.Size) -> Tensor:
    stride = torch.empty(shape, dtype=local.dtype, device="meta").stride()
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)


def _param_of(handle: ShardedGradients, name: str, tensor: Tensor) -> Tensor | None:
    """The parameter that a saved tensor has an entry for each entry of, if it has one."""
    param = None if "#" in name else handle.sharded.params.get(parameter_of(name))
    return param if param is not None and local_part(param.detach()).shape == tensor.shape else None


def _shifted(param: Any) -> Any:
    """The parameter's placement, with one dimension before its own."""
    (place,) = param.placements
    return Shard(place.dim + 1) if place.is_shard() else place


def _check_mesh(handle: ShardedGradients, mesh: DeviceMesh) -> None:
    if mesh.ndim != 2 or mesh.size(0) != handle.transport.size or mesh.get_local_rank(0) != handle.transport.rank:
        raise ConfigError(
            f"a mesh of shape {tuple(mesh.shape)} was given; give that of replicas and shards, in this order, over "
            f"whose first dimension the handle's {handle.transport.size} replicas lie"
        )
    for name, param in handle.sharded.params.items():
        if len(getattr(param, "placements", ())) != 1:
            raise ConfigError(
                f"{name!r} is placed over several dimensions, and such memories are only saved by the handle's own "
                "state_dict(), for as many processes"
            )
