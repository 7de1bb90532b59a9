"""What the processes of the tests of frameworks that shard train: one network, and data by place and step."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

METHOD = "topk:density=5%"
"""Sparse, with error feedback; of the network it compresses the widest matrix."""


def network() -> nn.Sequential:
    """Sharded alike in every test, with something random to resume."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 64), nn.Tanh(), nn.Dropout(0.1), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    )  # fmt: skip


def examples(count: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(7))
    return x, x[:, :1].sin()


def loss_of(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


def local(model: nn.Module) -> dict[str, Tensor]:
    """This process's part of every parameter."""
    found = {}
    for name, param in model.named_parameters():
        shard: Any = param.detach()
        assert isinstance(shard, DTensor), f"{name} is not sharded"
        found[name] = shard.to_local().clone()
    return found


def whole(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter, of whatever shards."""
    params: list[tuple[str, Any]] = list(model.named_parameters())
    return {name: param.detach().full_tensor().clone() for name, param in params}


def state_of(handle: Any) -> dict[str, Any]:
    """What a handle remembers, to compare it."""
    saved = handle.state_dict()
    return {"tensors": saved["tensors"], "counters": saved["counters"]}
