"""Run by torchrun: Accelerate shards a model over two of four processes, and two replicas exchange.

Accelerate offers FSDP2 on accelerators alone: it looks at the kind of the processes and at nothing else. So it is told
here that these are of such a kind. All that it does then is its own code, on the CPU and over gloo.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.parallelism_config import ParallelismConfig
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from sharded_models import METHOD, local, loss_of, network, state_of
from torch import nn
from torch.distributed.fsdp import fully_shard

from thinwire.errors import ConfigError
from thinwire.integrations.accelerate import Exchange, prepare

STEPS, PARTS = 6, 2


def accelerator_of(kind: str = "SHARDED_STATE_DICT", **sizes: int) -> Accelerator:
    if not AcceleratorState._shared_state:  # else it has what it needs to know
        PartialState(cpu=True).distributed_type = DistributedType.MULTI_GPU
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="size_based_wrap", min_num_params=300, state_dict_type=kind
    )
    config = ParallelismConfig(**sizes) if sizes else None
    return Accelerator(cpu=True, fsdp_plugin=plugin, parallelism_config=config, gradient_accumulation_steps=PARTS)


def made(method: str | None, kind: str = "SHARDED_STATE_DICT") -> tuple[Accelerator, Exchange | None, Any, Any, Any]:
    accelerator = accelerator_of(kind, dp_replicate_size=2, dp_shard_size=2)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
    if method is None:
        return accelerator, None, *accelerator.prepare(model, optimizer, scheduler)
    exchange, model, optimizer, scheduler = prepare(accelerator, method, model, optimizer, scheduler, seed=3)
    return accelerator, exchange, model, optimizer, scheduler


def train(parts: Any, begin: int, end: int) -> list[float]:
    accelerator, _, model, optimizer, scheduler = parts
    losses = []
    for number in range(PARTS * begin, PARTS * end):
        generator = torch.Generator().manual_seed(1000 * number + dist.get_rank())
        x = torch.randn(16, 6, generator=generator)
        with accelerator.accumulate(model):
            loss = loss_of(model(x), x[:, :1].sin())
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.05)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def equal_runs() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, method in (("plain", None), ("sgd", "sgd")):
        parts = made(method)
        torch.manual_seed(100 + dist.get_rank())  # of dropout
        train(parts, 0, STEPS)
        accelerator, exchange, model, *_ = parts
        found[name] = local(model)
        found[f"{name} replicas"] = accelerator.parallelism_config.dp_replicate_size
        if exchange is not None:
            found["sgd bytes"] = exchange.message_bytes
            exchange.close()
    return found


def resumed_run(folder: Path, kind: str) -> dict[str, Any]:
    AcceleratorState._reset_state()
    parts = made(METHOD, kind)
    torch.manual_seed(100 + dist.get_rank())
    losses = train(parts, 0, STEPS)
    parts[0].save_state(str(folder))
    assert parts[1] is not None
    middle = state_of(parts[1]._attachment.handles[0])
    losses += train(parts, STEPS, 2 * STEPS)
    found = {"middle": middle, "whole": ended(parts), "losses": losses}
    torch.manual_seed(99)
    parts = made(METHOD, kind)
    with torch.no_grad():
        for param in parts[2].parameters():
            param.zero_()
    parts[0].load_state(str(folder))
    train(parts, STEPS, 2 * STEPS)
    return {**found, "resumed": ended(parts)}


def ended(parts: Any) -> dict[str, Any]:
    _, exchange, model, *_ = parts
    handle = exchange._attachment.handles[0]
    found = {"model": local(model), "handle": state_of(handle), "bytes": exchange.message_bytes}
    exchange.close()
    return found


def refusal(accelerator: Accelerator, method: str, model: nn.Module) -> str:
    try:
        prepare(accelerator, method, model, torch.optim.SGD(model.parameters(), lr=0.1))
    except ConfigError as error:
        return str(error)
    return "nothing"


def main(folder: str) -> None:
    found: dict[str, Any] = {"equal": equal_runs()}
    for kind in ("SHARDED_STATE_DICT", "FULL_STATE_DICT"):
        found[kind] = resumed_run(Path(folder, kind), kind)
    accelerator = accelerator_of(dp_replicate_size=2, dp_shard_size=2)
    found["local steps"] = refusal(accelerator, "topk:density=5%,every=4", network())
    both = network()
    fully_shard(both, mesh=accelerator.torch_device_mesh)
    found["both dimensions"] = refusal(accelerator, METHOD, both)
    AcceleratorState._reset_state()
    found["no replicas"] = refusal(accelerator_of(), METHOD, network())
    AcceleratorState._reset_state(reset_partial_state=True)
    found["no plugin"] = refusal(Accelerator(cpu=True), METHOD, both)
    torch.save(found, Path(folder, f"rank-{dist.get_rank()}.pt"))


if __name__ == "__main__":
    main(sys.argv[1])
    dist.destroy_process_group()
