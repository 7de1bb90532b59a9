"""What scripts do around a hooked DDP, for two processes; a module of its own, so that they can import it by name."""

import copy
import functools
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import CompressedGradients, DensePolicy, LinkOptions

NOTHING_DENSE = DensePolicy(vectors=False, embeddings=False, below=0)
LR = 0.1
LINKS = LinkOptions(timeout=timedelta(seconds=20))


class Net(nn.Module):
    """Two layers, and a spare one that is added where it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 10)
        self.spare = nn.Linear(10, 10)
        self.last = nn.Linear(10, 3)
        self.uses_spare = True

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        if self.uses_spare:
            x = x + torch.tanh(self.spare(x))
        return self.last(x)  # type: ignore[no-any-return]


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def loss_of(model: Callable[[Tensor], Tensor], step: int, rank: int) -> Tensor:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1000 * step + rank))
    loss: Tensor = (model(x) - x[:, :3].sin()).square().mean()
    return loss


def hooked(model: nn.Module, method: str = "topk:density=10%", **more: Any) -> tuple[Any, CompressedGradients]:
    ddp = {name: more.pop(name) for name in tuple(more) if name in _OF_DDP}
    wrapped = DistributedDataParallel(model, **ddp)
    options: dict[str, Any] = {"policy": NOTHING_DENSE, "warn_if_slower": False, "links": LINKS} | more
    return wrapped, thinwire.compress_ddp(wrapped, method, **options)


def training(
    method: str = "topk:density=10%", **more: Any
) -> tuple[Net, Any, CompressedGradients, torch.optim.Optimizer]:
    """A model, the same hooked, its handle and its optimizer."""
    model = net()
    return model, *hooked(model, method, **more), torch.optim.SGD(model.parameters(), lr=0.05)


_OF_DDP = ("find_unused_parameters", "static_graph", "gradient_as_bucket_view", "bucket_cap_mb")


def raised(work: Callable[[], object]) -> tuple[str, str]:
    """The class and the text of what it raises."""
    try:
        work()
    except BaseException as error:
        return type(error).__name__, str(error)
    return "", ""


# What is given is applied or owed.


@dataclass(frozen=True)
class Life:
    """One training, and what the script does in some of its steps.

    ``unused``: the spare layer is not used. ``freeze`` and ``unfreeze`` it, before the step. ``skip``: gradients are
    thrown away. ``keep``: they are kept, and the next ones are added. ``half``: of two optimizers only the first steps.
    ``by hand``: the script writes the parameters itself. ``replace``: the last layer by another, in the model and the
    optimizer. Else the optimizer steps.
    """

    events: dict[int, str] = field(default_factory=dict)
    find_unused_parameters: bool = False
    gradient_as_bucket_view: bool = False
    static_graph: bool = False
    set_to_none: bool = True
    starts_frozen: bool = False
    bucket_cap_mb: float = 25.0

    def __str__(self) -> str:
        marks = [name for name in (*_OF_DDP, "starts_frozen") if name != "bucket_cap_mb" and getattr(self, name)]
        marks += [] if self.set_to_none else ["zeros"]
        marks += [] if self.bucket_cap_mb == 25.0 else ["small buckets"]
        return ", ".join([*(f"{step} {event}" for step, event in self.events.items()), *marks])


_MODES = [
    {"set_to_none": to_none, "gradient_as_bucket_view": views} for to_none in (True, False) for views in (True, False)
]
LIVES = (
    Life(),
    *(Life({2: "skip", 3: "skip"}, **mode) for mode in _MODES),
    *(Life({2: "keep", 3: "keep"}, **mode) for mode in _MODES),
    *(Life({2: "unused", 3: "unused"}, find_unused_parameters=True, **mode) for mode in _MODES),
    Life({2: "unused", 3: "unused"}, find_unused_parameters=True, bucket_cap_mb=0.0002),
    Life(dict.fromkeys(range(6), "unused"), static_graph=True),
    *(Life({2: "freeze", 4: "unfreeze"}, find_unused_parameters=finds) for finds in (True, False)),
    *(Life({2: "unfreeze"}, starts_frozen=True, bucket_cap_mb=mb) for mb in (25.0, 0.0002)),
    Life({2: "freeze", 4: "unfreeze"}, static_graph=True),
    Life({1: "half", 3: "half"}),
    Life(dict.fromkeys(range(6), "by hand")),
    Life({3: "replace"}),
)
STEPS = 6


def live_all(rank: int, size: int) -> list[dict[str, Any]]:
    return [live(life, rank) for life in LIVES]


def live(life: Life, rank: int) -> dict[str, Any]:
    """Of each parameter: the sum of the mean gradients that were to count, what was applied, and the mean of what is
    owed; how far spare parameters moved while they were unused or frozen, and whether they had gradients then."""
    model = net(seed=rank)  # the processes begin alike all the same
    model.spare.requires_grad_(not life.starts_frozen)
    wrapped, hook = hooked(
        model, find_unused_parameters=life.find_unused_parameters, static_graph=life.static_graph,
        gradient_as_bucket_view=life.gradient_as_bucket_view, bucket_cap_mb=life.bucket_cap_mb,
    )  # fmt: skip
    with hook:
        return _live(life, model, wrapped, hook, rank)


def _live(
    life: Life, model: Net, wrapped: DistributedDataParallel, hook: CompressedGradients, rank: int
) -> dict[str, Any]:
    halves = [list(model.first.parameters()), [*model.spare.parameters(), *model.last.parameters()]]
    optimizers = [torch.optim.SGD(half, lr=LR) for half in halves]
    begin = {name: param.detach().clone() for name, param in model.named_parameters()}
    given = {name: torch.zeros_like(param) for name, param in model.named_parameters()}
    kept: list[dict[str, Tensor]] = []
    moved, had_gradients = 0.0, False
    for step in range(STEPS):
        event = life.events.get(step, "")
        if event in ("freeze", "unfreeze"):
            model.spare.requires_grad_(event == "unfreeze")
        if event == "replace":
            torch.manual_seed(7 + rank)
            model.last = nn.Linear(10, 3)
            optimizers[1].param_groups[0]["params"][2:] = list(model.last.parameters())
        model.uses_spare = event != "unused"
        is_idle = event == "unused" or not model.spare.weight.requires_grad
        before = model.spare.weight.detach().clone()
        mean = mean_gradients(model, step, rank) if event != "replace" else {}
        loss_of(wrapped, step, rank).backward()
        if event == "replace":  # the gradients at the common values, which the new layer has only now
            mean = mean_gradients(model, step, rank)
            begin |= {f"last.{name}": param.detach().clone() for name, param in model.last.named_parameters()}
            given |= {f"last.{name}": torch.zeros_like(param) for name, param in model.last.named_parameters()}
        kept.append(mean)
        if is_idle and life.set_to_none:
            had_gradients |= any(param.grad is not None for param in model.spare.parameters())
        if event == "keep":
            continue
        names = set(given)
        if event == "half":
            names = {name for name in names if name.startswith("first")}
            optimizers[0].step()
        elif event == "by hand":
            with torch.no_grad():
                for param in model.parameters():
                    if param.grad is not None:
                        param.sub_(LR * param.grad)
        elif event != "skip":
            for optimizer in optimizers:
                optimizer.step()
        if event != "skip":
            for each in kept:
                for name in names & each.keys():
                    given[name] += each[name]
        kept = []
        if is_idle:
            moved = max(moved, float((model.spare.weight.detach() - before).abs().max()))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=life.set_to_none)
    tensors = hook.state_dict()["tensors"]
    owed = {name: tensors.get(f"memory.residual.{name}", torch.zeros_like(each)) for name, each in given.items()}
    for each in owed.values():
        dist.all_reduce(each)
        each /= 2
    applied = {name: (begin[name] - param.detach()) / LR for name, param in model.named_parameters()}
    sums = [float(param.detach().double().sum()) for param in model.parameters()]
    return {
        "given": given, "applied": applied, "owed": owed, "moved": moved, "had_gradients": had_gradients, "sums": sums,
        "num_steps": hook.num_steps,
    }  # fmt: skip


def mean_gradients(model: nn.Module, step: int, rank: int) -> dict[str, Tensor]:
    """By torch alone, without DDP: its hooks do not hear of it."""
    named = {name: param for name, param in model.named_parameters() if param.requires_grad}
    found: Sequence[Tensor | None] = torch.autograd.grad(
        loss_of(model, step, rank), list(named.values()), allow_unused=True
    )
    mean = {name: grad.clone() for name, grad in zip(named, found, strict=True) if grad is not None}
    for grad in mean.values():
        dist.all_reduce(grad)
        grad /= 2
    return mean


# Errors keep their class and their text.


class BadSink:
    def write(self, records: Any) -> None:
        raise OSError("the disk is full")


def errors(rank: int, size: int) -> dict[str, Any]:
    return {name: scenario(rank) for name, scenario in ERRORS.items()}


def _trained(rank: int, steps: int = 2, **more: Any) -> tuple[Net, Any, CompressedGradients, torch.optim.Optimizer]:
    model = net()
    wrapped, hook = hooked(model, **more)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for step in range(steps):
        one_step(wrapped, optimizer, step, rank)
    return model, wrapped, hook, optimizer


def one_step(wrapped: Any, optimizer: torch.optim.Optimizer, step: int, rank: int) -> None:
    optimizer.zero_grad()
    loss_of(wrapped, step, rank).backward()
    optimizer.step()


def _divergence(rank: int) -> Any:
    model, wrapped, hook, optimizer = _trained(rank, guard=thinwire.ReplicaGuard(every=1))
    with torch.no_grad():
        model.first.weight += rank
    with hook:
        return raised(lambda: one_step(wrapped, optimizer, 2, rank))


def _dead_peer(rank: int) -> Any:
    _, wrapped, hook, optimizer = _trained(rank)
    if rank == 1:
        hook.transport.abort("worker 1 raised ValueError: a bad batch")
        hook.close()
        return "WorkerError", "worker 1 raised ValueError: a bad batch"
    with hook:
        return raised(lambda: one_step(wrapped, optimizer, 2, rank))


def _closed(rank: int) -> Any:
    _, wrapped, hook, optimizer = _trained(rank)
    hook.close()
    found = raised(lambda: one_step(wrapped, optimizer, 2, rank))
    with torch.no_grad():  # it can be used otherwise
        wrapped(torch.ones(1, 6))
    again = thinwire.compress_ddp(wrapped, "topk:density=10%", policy=NOTHING_DENSE, warn_if_slower=False)
    with again:
        one_step(wrapped, optimizer, 3, rank)
        assert again.num_steps == 1
    return found


def _sink(rank: int) -> Any:
    report = thinwire.LayerReport(sink=BadSink(), every=1, ranks=(0, 1))
    _, wrapped, hook, optimizer = _trained(rank, steps=0, layer_report=report)
    with hook:
        return raised(lambda: one_step(wrapped, optimizer, 0, rank))


def _numerics(rank: int, method: str = "topk:density=10%", **more: Any) -> Any:
    model, wrapped, hook, optimizer = _trained(rank, method=method, **more)
    with hook:
        before = copy.deepcopy(hook.state_dict())
        optimizer.zero_grad()
        loss = loss_of(wrapped, 2, rank) * (float("nan") if rank else 1.0)
        found = raised(loss.backward)
        after = hook.state_dict()
        assert before["tensors"].keys() == after["tensors"].keys()
        assert all(torch.equal(before["tensors"][name], after["tensors"][name]) for name in before["tensors"])
        assert after["counters"]["num_steps"] == 2
        for step in (3, 4):  # training can go on
            one_step(wrapped, optimizer, step, rank)
        assert hook.num_steps == 4
        assert all(bool(param.isfinite().all()) for param in model.parameters())
    return found


def _disagree(rank: int) -> Any:
    model, wrapped, hook, optimizer = _trained(rank)
    if rank == 1:
        model.spare.requires_grad_(False)
    with hook:
        return raised(lambda: one_step(wrapped, optimizer, 2, rank))


ERRORS: dict[str, Callable[[int], Any]] = {
    "DivergenceError": _divergence,
    "WorkerError": _dead_peer,
    "ConfigError": _closed,
    "OSError": _sink,
    "NumericsError": _numerics,
    "NumericsError, views": functools.partial(_numerics, gradient_as_bucket_view=True, bucket_cap_mb=0.0002),
    "NumericsError, unused": functools.partial(_numerics, find_unused_parameters=True),
    "NumericsError, static": functools.partial(_numerics, static_graph=True),
    "one freezes": _disagree,
}


# Scripts of two processes.


def scripts(rank: int, size: int) -> dict[str, Any]:
    return {name: scenario(rank) for name, scenario in SCRIPTS.items()}


def _unfreeze(rank: int) -> Any:
    """A layer that was frozen when DDP was made joins."""
    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].requires_grad_(False)
    wrapped, hook = hooked(model, "sgd", guard=thinwire.ReplicaGuard(every=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[0].requires_grad_(True)
    weight = model.get_parameter("0.weight")
    before = weight[0, 0].item()
    with hook:
        for _ in range(5):
            optimizer.zero_grad()
            wrapped(torch.randn(4, 8)).square().mean().backward()
            optimizer.step()
    return weight.detach().clone(), weight[0, 0].item() != before


def _head_replaced(rank: int) -> Any:
    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    wrapped, hook = hooked(model, "topk:density=10%", guard=thinwire.ReplicaGuard(every=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with hook:
        for step in range(5):
            if step == 2:
                model[1] = nn.Linear(8, 8)
                optimizer.param_groups[0]["params"][2:] = list(model[1].parameters())
            optimizer.zero_grad()
            wrapped(torch.randn(4, 8)).square().mean().backward()
            optimizer.step()
    return model.get_parameter("1.weight").detach().clone(), True


def _frozen_moves(rank: int) -> Any:
    """How far what is frozen or unused moves, under momentum and decay."""
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("used", "spare", "frozen")})

    class Run(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return model["frozen"](model["used"](x))  # type: ignore[no-any-return]

    wrapped, hook = hooked(Run(), "topk:density=10%", find_unused_parameters=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    kept: dict[str, Tensor] = {}
    with hook:
        for step in range(4):
            if step == 1:
                model["frozen"].requires_grad_(False)
                kept = {name: param.detach().clone() for name, param in model.named_parameters()}
            wrapped(torch.ones(4, 8)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return {
        layer: max(
            float((param - kept[f"{layer}.{name}"]).abs().max()) for name, param in model[layer].named_parameters()
        )
        for layer in ("used", "spare", "frozen")
    }


def _loaded_by_one(rank: int, loads: int) -> Any:
    model = net()
    wrapped, hook = hooked(model)
    if rank == loads:
        model.load_state_dict(net(seed=5).state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    with hook, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            one_step(wrapped, optimizer, step, rank)
    said = [str(each.message) for each in caught if "written after compress_ddp" in str(each.message)]
    return [param.detach().clone() for param in model.parameters()], said


def _loaded_by_all(rank: int) -> Any:
    model = net()
    wrapped, hook = hooked(model)
    model.load_state_dict(net(seed=5).state_dict())
    with hook, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loss_of(wrapped, 0, rank).backward()
        return torch.equal(model.first.weight, net(seed=5).first.weight)


def _join(rank: int) -> Any:
    """The processes have batches of different numbers."""
    model = net()
    wrapped, hook = hooked(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    with hook:
        with wrapped.join():
            for step in range(4 - 2 * rank):
                one_step(wrapped, optimizer, step, rank)
        return model.first.weight.detach().clone(), hook.state_dict()["counters"]["num_steps"]


SCRIPTS: dict[str, Callable[[int], Any]] = {
    "unfreeze": _unfreeze,
    "head replaced": _head_replaced,
    "frozen moves": _frozen_moves,
    "loaded by 0": functools.partial(_loaded_by_one, loads=0),
    "loaded by 1": functools.partial(_loaded_by_one, loads=1),
    "loaded by all": _loaded_by_all,
    "join": _join,
}


def saved(model: nn.Module) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file
