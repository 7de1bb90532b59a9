"""What processes with sharded models on a device run; a module of its own, so that they can import it by name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from device_mains import batch, network, stepper
from place import DEVICE, host, working
from pretended_streams import ORDER, Event, Stream, current_stream
from rounding import rounding_otherwise
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import thinwire
from thinwire.distributed import Transport

STEPS = 3
REPLICAS = ("sgd", "signtopk:density=5%", "qsgd:bits=4")
SHARDS = ("sgd", "qsgd:bits=4")


def local(model: nn.Module, place: torch.device) -> list[Tensor]:
    """What this process holds of each parameter, and of its gradient."""
    found = []
    for param in model.parameters():
        for each in (param.detach(), param.grad):
            assert isinstance(each, DTensor)
            assert each.to_local().device.type == place.type
            found.append(host(each.to_local()).clone())
    return found


def train(model: nn.Module, rank: int, place: torch.device) -> list[Tensor]:
    optimizer = stepper(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        model(batch(rank, step, place)).backward()
        optimizer.step()
    return local(model, place)


def replicas(rank: int, method: str, place: torch.device) -> list[Tensor]:
    """Two replicas of one shard each."""
    mesh = init_device_mesh(place.type, (2, 1), mesh_dim_names=("replicate", "shard"))
    model = network(0).to(place)
    fully_shard(model, mesh=mesh["shard"])
    handle = thinwire.compress_fsdp(model, method, mesh=mesh, seed=5)
    found = train(model, rank, place)
    assert handle.message_bytes > 0
    handle.close()
    return found


def shards(rank: int, method: str, place: torch.device) -> list[Tensor]:
    """One model that two processes share, compressed between them."""
    model = network(0).to(place)
    fully_shard(model, mesh=init_device_mesh(place.type, (2,)))
    handle = thinwire.compress_shards(model, gradients=method, seed=5)
    found = train(model, rank, place)
    handle.close()
    return found


@contextmanager
def current_by_default() -> Iterator[None]:
    """FSDP2 records events on the current stream without naming it, as thinwire has to (``Event.record``)."""
    record = Event.record

    def recorded(self: Event, stream: Stream | None = None) -> None:
        record(self, current_stream() if stream is None else stream)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Event, "record", recorded)
        yield


def train_all(folder: str, transport: Transport) -> None:
    """Everything on the CPU, then on the device."""
    torch.set_num_threads(1)
    mains: list[tuple[Callable[[int, str, torch.device], list[Tensor]], tuple[str, ...]]]
    mains = [(replicas, REPLICAS), (shards, SHARDS)]
    found = {}
    for main, methods in mains:
        for method in methods:
            plain = main(transport.rank, method, torch.device("cpu"))
            with working(), rounding_otherwise(), current_by_default():
                there = main(transport.rank, method, DEVICE)
                found[f"{main.__name__} {method}"] = [plain, there, list(ORDER.races)]
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))
