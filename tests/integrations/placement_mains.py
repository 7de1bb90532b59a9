"""What the processes of the tests of islands run: models of which only the placement counts."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from thinwire.distributed import Transport
from thinwire.errors import ConfigError
from thinwire.integrations.islands import replicas_beside


def model_on(*meshes: DeviceMesh) -> nn.Module:
    shards = [DTensor.from_local(torch.ones(1, 2), mesh, [Shard(0)], run_check=False) for mesh in meshes]
    return nn.ParameterList(nn.Parameter(shard) for shard in shards)


def told(model: nn.Module) -> str:
    try:
        return str(dist.get_process_group_ranks(replicas_beside(model).get_group()))
    except ConfigError as error:
        return str(error)


def main(folder: str, transport: Transport) -> None:
    rank = dist.get_rank()
    both = init_device_mesh("cpu", (2, 2), mesh_dim_names=("first", "second"))
    line = init_device_mesh("cpu", (4,))
    found = {
        "rows": told(model_on(both["second"])),
        "columns": told(model_on(both["first"])),
        "everywhere": told(model_on(line)),
        "within and over all": told(model_on(both["second"], line)),
        "of two sizes": told(model_on(both["second"] if rank < 2 else line)),
        "on several": told(model_on(both["first"], both["second"])),
    }
    torch.save(found, Path(folder, f"rank-{rank}.pt"))
