"""What processes with models on the pretended device run; a module of its own, so that they can import it by name."""

import dataclasses
import functools
import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from place import DEVICE, host, working
from pretended_streams import ORDER
from rounding import rounding_otherwise
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import Transport
from thinwire.worker import LayerReport
from thinwire.worker.layer_report import LayerRecord

STEPS = 5
RANKS = (0, 1)
HOOKED = ("sgd", "bf16-sgd", "signtopk:density=5%", "qsgd:bits=4", "ef-signsgd", "powersgd:rank=1", "dgc:density=5%")
CHECKPOINTED = ("signtopk:density=5%,every=2", "streaming-diloco:every=1,fragments=3,delay=2,mix=0")
SCRIPTED = ("signtopk:density=2%,every=4",)
WRAPPED = ("signtopk:density=5%,every=2", "qsgd:bits=4")
ACCELERATED = ("signtopk:density=5%,every=2",) if importlib.util.find_spec("accelerate") is not None else ()
SYNCHRONIZED = ("sgd", "qsgd:bits=4", "signtopk:density=5%,every=2", "diloco:every=2", "gtopk", "ok-topk")


class Exact(nn.Module):
    """A network whose gradient has the same bits wherever its parameters lie; its result is the loss.

    A device's own forward and backward round otherwise than the CPU's. So the gradient of the loss is computed on the
    CPU, of what the parameters hold, and the result is the sum of their products with it: backward, on the device and
    under the hooks of DDP, gives exactly those numbers. The result's value is another than that of the loss.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Of a batch of inputs."""
        named = dict(self.network.named_parameters())
        on_host = {name: host(param).clone().requires_grad_() for name, param in named.items()}
        x = host(x)
        loss = (torch.func.functional_call(self.network, on_host, (x,)) - x[:, :1].sin()).square().mean()
        grads = torch.autograd.grad(loss, list(on_host.values()))
        return torch.stack(
            [(param * grad.to(param.device)).sum() for param, grad in zip(named.values(), grads, strict=True)]
        ).sum()


def network(rank: int) -> nn.Module:
    """Another on each process, so that the one of process 0 is sent to the others."""
    torch.manual_seed(rank)
    return Exact(nn.Sequential(nn.Linear(24, 60), nn.ReLU(), nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 1)))


def stepper(model: nn.Module, momentum: float = 0.0) -> torch.optim.Optimizer:
    """Its steps have the same bits on every device: the rate is a power of two, so that no product is rounded.

    With another rate, and in torch's other optimizers, CUDA rounds products and sums otherwise than the CPU.
    """
    return torch.optim.SGD(model.parameters(), lr=2.0**-4, momentum=momentum)


def batch(rank: int, step: int, place: torch.device) -> Tensor:
    return torch.randn(16, 24, generator=torch.Generator().manual_seed(100 * rank + step)).to(place)


@dataclass
class Kept:
    """Keeps what is reported of layers."""

    records: list[dict[str, Any]] = field(default_factory=list)

    def write(self, records: Sequence[LayerRecord]) -> None:
        self.records.extend(map(dataclasses.asdict, records))


def hooked(rank: int, method: str, place: torch.device) -> dict[str, Any]:
    """Training under the hook of DDP, whose buckets hold few layers, with a guard and a report."""
    model = network(rank).to(place)
    ddp = DistributedDataParallel(model, bucket_cap_mb=0.005)
    optimizer, sink = stepper(model, 0.9), Kept()
    waits: list[str] = []
    log: list[str] = []
    with thinwire.compress_ddp(
        ddp,
        method,
        warn_if_slower=False,
        guard=thinwire.ReplicaGuard(every=2),
        layer_report=LayerReport(sink=sink, every=2, ranks=RANKS),
    ) as handle:
        for step in range(STEPS):  # the guard compares in the backward after an even step
            optimizer.zero_grad()
            loss = ddp(batch(rank, step, place))
            ORDER.waits.clear()
            ORDER.log.clear()
            loss.backward()
            if step == STEPS - 2:  # nothing is reported of that one
                waits, log = list(ORDER.waits), list(ORDER.log)
            optimizer.step()
        state = handle.state_dict()
        return {
            "parameters": [host(param).clone() for param in model.parameters()],
            "state": {name: host(tensor) for name, tensor in state["tensors"].items()},
            "bytes": handle.message_bytes,
            "report": sink.records,
            "waits": waits,
            "log": log,
        }


def synchronized(rank: int, method: str, place: torch.device) -> dict[str, Any]:
    """Training by :func:`thinwire.synchronize`, in two parts: the second begins with the first one's state."""
    state: dict[str, Any] | None = None
    model = network(rank).to(place)
    for part in range(2):
        optimizer = stepper(model)
        with thinwire.synchronize(optimizer, model, method, guard=thinwire.ReplicaGuard(every=2)) as handle:
            if state is not None:
                handle.load_state_dict(state)
            for step in range(part * STEPS, (part + 1) * STEPS):
                optimizer.zero_grad()
                model(batch(rank, step, place)).backward()
                optimizer.step()
            handle.flush()
            state = handle.state_dict()
            num_bytes = handle.message_bytes
    return {"parameters": [host(param).clone() for param in model.parameters()], "bytes": num_bytes}


def wrapped(rank: int, method: str, place: torch.device) -> dict[str, Any]:
    """Training by an optimizer that exchanges, with a report."""
    model, sink = network(rank).to(place), Kept()
    optimizer = thinwire.DistributedOptimizer(
        stepper(model, 0.9), model, method, layer_report=LayerReport(sink=sink, ranks=RANKS)
    )
    for step in range(STEPS):
        optimizer.zero_grad()
        model(batch(rank, step, place)).backward()
        optimizer.step()
    num_bytes = optimizer.sync.message_bytes
    optimizer.sync.close()
    parameters = [host(param).clone() for param in model.parameters()]
    return {"parameters": parameters, "bytes": num_bytes, "report": sink.records}


def reseed(place: torch.device, seed: int) -> None:
    """Another state for the generator of a device that has its own."""
    if place.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif place.type != "cpu":
        torch.get_device_module(place).set_rng_state(torch.Generator().manual_seed(seed).get_state(), place)


def checkpointed(rank: int, method: str, place: torch.device) -> dict[str, Any]:
    """Training that is stopped, and goes on from a checkpoint with another model and optimizer."""
    found: dict[str, Any] = {}
    folder = f"{place.type}-{CHECKPOINTED.index(method)}"
    reseed(place, 7)
    for part in range(2):
        model = network(rank + part).to(place)
        optimizer = stepper(model, 0.9)
        with thinwire.synchronize(optimizer, model, method) as handle:
            parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "handle": handle}
            checkpoints = thinwire.Checkpoints(folder, parts)
            begun = checkpoints.load() or 0
            if place.type != "cpu":
                found[f"random {part}"] = torch.get_device_module(place).get_rng_state(place)
            for step in range(begun, begun + STEPS):
                optimizer.zero_grad()
                model(batch(rank, step, place)).backward()
                optimizer.step()
            if part == 0:
                checkpoints.save(STEPS)
            reseed(place, 99)
            checkpoints.close()
            num_bytes = handle.message_bytes
    return {"parameters": [host(param).clone() for param in model.parameters()], "bytes": num_bytes, "random": found}


def accelerated(rank: int, method: str, place: torch.device) -> dict[str, Any]:
    """Training with Accelerate, which is told to leave models where they are: it knows no pretended device."""
    from accelerate import Accelerator

    from thinwire.integrations.accelerate import prepare

    accelerator, model = Accelerator(device_placement=False, cpu=True), network(rank).to(place)
    exchange, prepared, optimizer = prepare(accelerator, method, model, stepper(model, 0.9))
    for step in range(STEPS):
        optimizer.zero_grad()
        accelerator.backward(prepared(batch(rank, step, place)))
        optimizer.step()
    exchange.flush()
    num_bytes = exchange.message_bytes
    exchange.close()
    return {"parameters": [host(param).clone() for param in model.parameters()], "bytes": num_bytes}


def scripted(rank: int, method: str, place: torch.device) -> dict[str, Any]:
    """The README's script as it stands there; on a device one call is added to one line of it.

    Its loader gives batches of the device, and its AdamW is one whose bits are those of the CPU (:func:`stepper`).
    """
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = [each for each in re.findall(r"```diff\n(.*?)```", readme, re.DOTALL) if method in each]
    script = re.sub("^[ +] ", "", block, flags=re.MULTILINE).replace("dist.init_process_group()\n", "")
    if place.type != "cpu":
        script, count = re.subn(r"build_model\(\)", "build_model().to(device)", script)
        assert count == 1
    batches = [batch(rank, step, place) for step in range(8)]
    names: dict[str, Any] = {
        "torch": SimpleNamespace(optim=SimpleNamespace(AdamW=lambda params, lr: torch.optim.SGD(params, lr=2.0**-9))),
        "thinwire": thinwire, "device": place, "build_model": functools.partial(network, rank),
        "loader": [(x, x[:, :1]) for x in batches], "loss_of": lambda result, targets: result,
    }  # fmt: skip
    exec(script, names)
    return {"parameters": [host(param).clone() for param in names["model"].parameters()]}


def train_all(folder: str, transport: Transport) -> None:
    """Everything on the CPU, then on the pretended device."""
    rank = transport.rank
    os.chdir(folder)
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for train, methods in (
        (hooked, HOOKED),
        (synchronized, SYNCHRONIZED),
        (wrapped, WRAPPED),
        (checkpointed, CHECKPOINTED),
        (scripted, SCRIPTED),
        (accelerated, ACCELERATED),
    ):
        for method in methods:
            plain = train(rank, method, torch.device("cpu"))
            with working(), rounding_otherwise():
                pretended = train(rank, method, DEVICE)
                found[f"{train.__name__} {method}"] = plain, pretended, list(ORDER.races)
    torch.save(found, Path(folder, f"rank-{rank}.pt"))
