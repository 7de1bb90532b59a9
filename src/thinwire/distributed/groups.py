"""Which processes exchange with each other."""

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from thinwire.errors import ConfigError

Group = dist.ProcessGroup | DeviceMesh | None
"""Processes that exchange with each other: a process group, a mesh of one dimension, or all."""


def process_group_of(group: Group) -> dist.ProcessGroup | None:
    """The process group of a mesh of one dimension; a process group as it is.

    Raises:
        ConfigError: a mesh of several dimensions.
    """
    if not isinstance(group, DeviceMesh):
        return group
    if group.ndim != 1:
        raise ConfigError(
            f"a mesh of {group.ndim} dimensions {group.mesh_dim_names} was given as group; give the one dimension over "
            'which to exchange, such as mesh["replicate"]'
        )
    return group.get_group()
