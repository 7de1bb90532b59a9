"""Situations of users' scripts, each on two processes, for test_reproductions.py."""

import datetime
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import Transport

SOON = thinwire.LinkOptions(timeout=datetime.timedelta(seconds=5))


def two_layers(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


def step(model: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, rank: int, number: int) -> None:
    optimizer.zero_grad()
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(10 * number + rank))
    model(x).square().mean().backward()
    optimizer.step()


def params(model: nn.Module) -> list[Tensor]:
    return [param.detach().clone() for param in model.parameters()]


@contextmanager
def told(found: dict[str, Any], name: str) -> Iterator[None]:
    """Keep the error that ends a situation, and how long it took."""
    begin = time.monotonic()
    try:
        yield
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
    else:
        found[name] = "no error"
    found[f"{name}, seconds"] = time.monotonic() - begin


def frozen_and_unused(rank: int) -> dict[str, float]:
    """How far a frozen layer, and one that nobody uses, move under momentum and decay."""
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("used", "spare", "frozen")})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    with thinwire.synchronize(optimizer, model, "sgd"):
        step(lambda x: model["frozen"](model["used"](x)), optimizer, rank, 0)
        optimizer.zero_grad()
        model["frozen"].requires_grad_(False)
        kept = {name: param.detach().clone() for name, param in model.named_parameters()}
        for number in range(3):
            step(lambda x: model["frozen"](model["used"](x)), optimizer, rank, number)
    return {name: float((param - kept[name]).abs().max()) for name, param in model.named_parameters()}


def unfrozen(rank: int) -> list[Tensor]:
    """A layer that was frozen when the handle was made."""
    model = two_layers(rank)
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with thinwire.synchronize(optimizer, model, "sgd", guard=thinwire.ReplicaGuard(every=1)):
        model[0].requires_grad_(True)
        for number in range(5):
            step(model, optimizer, rank, number)
    return params(model)


def replaced(rank: int, seed: int) -> list[Tensor]:
    """A layer that was replaced in the model and in the optimizer."""
    model = two_layers(rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with thinwire.synchronize(optimizer, model, "sgd", guard=thinwire.ReplicaGuard(every=1)):
        torch.manual_seed(seed)
        model[1] = nn.Linear(8, 8)
        optimizer.param_groups[0]["params"][2:] = list(model[1].parameters())
        for number in range(5):
            step(model, optimizer, rank, number)
    return params(model)


def thrown_away(rank: int) -> None:
    """A replaced layer of which only one process's differs, and that only the guard can see: it is frozen."""
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with thinwire.synchronize(optimizer, model, "sgd", guard=thinwire.ReplicaGuard(every=2)):
        model[0].requires_grad_(False)
        step(model, optimizer, rank, 0)
        model.get_parameter("0.weight").data.add_(float(rank))
        for number in range(1, 5):
            step(model, optimizer, rank, number)


def loaded(rank: int, method: str, *, alone: bool) -> list[Tensor]:
    """Weights that were loaded after the handle was made; nothing is learned."""
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with thinwire.synchronize(optimizer, model, method):
        if rank == 0 or not alone:
            model.load_state_dict({name: torch.full_like(value, 3.0) for name, value in model.state_dict().items()})
        for number in range(4):
            step(model, optimizer, rank, number)
    return params(model)


def clipped(rank: int) -> tuple[float, float]:
    """The gradient (100, 1) here and (-98, 1) there, clipped to 1: of the mean (1, 1)."""
    weight = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(weight.weight)
    optimizer = torch.optim.SGD(weight.parameters(), lr=1.0)
    with thinwire.synchronize(optimizer, weight, "sgd", clip_grad_norm=1.0):
        weight(torch.tensor([[100.0, 1.0], [-98.0, 1.0]][rank])).sum().backward()
        optimizer.step()
    first, second = (-weight.weight.detach()[0]).tolist()
    return first, second


def tail(rank: int, *, flushed: bool) -> tuple[bool, list[str]]:
    """Training that ends between two exchanges: whether what is published is the model before it, and warnings."""
    model = two_layers()
    begun = params(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        handle = thinwire.synchronize(optimizer, model, "local-sgd:every=16")
        for number in range(15):
            step(model, optimizer, rank, number)
        if flushed:
            handle.flush()
        with handle.shared_model() as shared:
            is_untrained = all(torch.equal(one, other) for one, other in zip(begun, params(shared), strict=True))
        handle.close()
    return is_untrained, [str(warning.message) for warning in caught]


def evaluates_twice(rank: int) -> None:
    """An optimizer that calls its closure twice, as sharpness-aware ones do."""

    class Twice(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            closure()
            closure()
            return super().step()

    model = two_layers()
    optimizer = Twice(model.parameters(), lr=0.1)
    with thinwire.synchronize(optimizer, model, "sgd"):

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = model(torch.ones(1, 8)).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)


def sharded(rank: int, *, by_flat: bool) -> list[bool]:
    """FSDP over the very processes that are to exchange: whether the weights are still what they were."""
    torch.manual_seed(0)
    model: nn.Module = nn.Linear(8, 8, bias=False)
    if by_flat:
        model = FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    else:
        fully_shard(model)
    thinwire.synchronize(torch.optim.SGD(model.parameters(), lr=0.1), model, "sgd")
    return []


def ddp_somewhere(form: str) -> None:
    wrapped = DistributedDataParallel(two_layers())
    forms: dict[str, Callable[[], Any]] = {
        "itself": lambda: wrapped, "compiled": lambda: torch.compile(wrapped, backend="eager"),
        "within": lambda: nn.Sequential(wrapped), "around": lambda: wrapped.module,
    }  # fmt: skip
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    thinwire.synchronize(optimizer, forms[form](), "signtopk:density=1%,every=4").close()


def differing(case: str, rank: int) -> None:
    """Processes that do not do the same."""
    nets: dict[str, Callable[[], nn.Module]] = {
        "transposed": lambda: nn.Linear(*((8, 4), (4, 8))[rank], bias=False),
        "wider": lambda: nn.Linear(8, (64, 48)[rank]),
        "a layer more": lambda: nn.Sequential(nn.Linear(8, 8), *(nn.Linear(8, 8) for _ in range(rank))),
        "bf16": lambda: nn.Linear(8, 8).to((torch.float32, torch.bfloat16)[rank]),
    }  # fmt: skip
    net = nets.get(case, two_layers)()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    settings: dict[str, Callable[[], dict[str, Any]]] = {
        "seed": lambda: {"seed": rank},
        "guard": lambda: {"guard": thinwire.ReplicaGuard(every=3) if rank == 0 else None},
        "clipping": lambda: {"clip_grad_norm": 1.0 + rank},
    }
    method = ("sgd", "qsgd:bits=4")[rank] if case == "method" else "shared-randk:density=5%"
    with thinwire.synchronize(optimizer, net, method, links=SOON, **settings.get(case, dict)()):
        pass


def differing_hooks(case: str, rank: int) -> None:
    settings: dict[str, Callable[[], dict[str, Any]]] = {
        "warn_if_slower": lambda: {"warn_if_slower": rank == 0},
        "policy": lambda: {"policy": thinwire.DensePolicy(below=0 if rank else 2000)},
        "hook seed": lambda: {"seed": rank},
    }
    model = DistributedDataParallel(two_layers())
    thinwire.compress_ddp(model, "topk:density=5%", links=SOON, **{"warn_if_slower": False, **settings[case]()}).close()


def reported(rank: int, folder: str) -> list[Tensor]:
    """What one process alone may ask for: a report."""
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = thinwire.LayerReport(sink=thinwire.JsonLines(Path(folder, "layers.jsonl")), every=2)
    with thinwire.synchronize(
        optimizer, model, "topk:density=5%", layer_report=report if rank == 0 else None, profile=rank == 0
    ):
        for number in range(6):
            step(model, optimizer, rank, number)
    return params(model)


def after_the_end(rank: int, folder: str) -> None:
    """A checkpoint after the block."""
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with thinwire.synchronize(optimizer, model, "sgd") as handle:
        step(model, optimizer, rank, 0)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "thinwire": handle}
    thinwire.Checkpoints(f"{folder}/checkpoints", parts).save(1)


def silent_peer(rank: int) -> None:
    """A peer that does not come to the exchange within the script's timeout."""
    alone_s = 6.0
    group = dist.new_group(timeout=datetime.timedelta(seconds=2))
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = thinwire.synchronize(optimizer, model, "sgd", group=group)
    if rank == 1:
        time.sleep(alone_s)
    step(model, optimizer, rank, 0)
    handle.close()


def everything(folder: str, transport: Transport) -> None:
    rank = transport.rank
    found: dict[str, Any] = {}
    dist.new_group([0])  # a group that not every process is in
    found["frozen"] = frozen_and_unused(rank)
    found["unfrozen"] = unfrozen(rank)
    found["replaced"] = replaced(rank, 3)
    with told(found, "replaced by layers that differ"):
        replaced(rank, rank)
    with told(found, "a frozen layer that differs"):
        thrown_away(rank)
    for method in ("sgd", "topk:density=1%", "signtopk:density=1%", "diloco:every=1", "local-sgd:every=3"):
        found[f"loaded, {method}"] = loaded(rank, method, alone=False)
        with told(found, f"loaded alone, {method}"):
            loaded(rank, method, alone=True)
    found["clipped"] = clipped(rank)
    for flushed in (False, True):
        found[f"tail {flushed}"] = tail(rank, flushed=flushed)
    with told(found, "closure called twice"):
        evaluates_twice(rank)
    for by_flat in (False, True):
        with told(found, f"sharded {by_flat}"):
            sharded(rank, by_flat=by_flat)
    for form in ("itself", "compiled", "within", "around"):
        with told(found, f"ddp {form}"):
            ddp_somewhere(form)
    for case in ("transposed", "wider", "a layer more", "bf16", "seed", "guard", "clipping", "method"):
        with told(found, f"differing {case}"):
            differing(case, rank)
    for case in ("warn_if_slower", "policy", "hook seed"):
        with told(found, f"differing {case}"):
            differing_hooks(case, rank)
    found["reported"] = reported(rank, folder)
    with told(found, "after the end"):
        after_the_end(rank, folder)
    with told(found, "silent peer"):
        silent_peer(rank)
    torch.save(found, Path(folder, f"rank-{rank}.pt"))
