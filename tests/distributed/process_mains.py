"""What the child processes of the tests run; a module of its own, so that they can import it by name."""

import functools
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from thinwire.distributed import DistributedOptimizer, LinkOptions, Transport
from thinwire.distributed.fabric import Fabric
from thinwire.errors import NumericsError, ProtocolError, ThinwireError
from thinwire.experiments.engines import Engine, ProcessEngine
from thinwire.experiments.session import Session
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Evaluation, Metric, Split
from thinwire.experiments.tasks.models import seeded, watched
from thinwire.methods import CATALOG, DirectedUpdate, ModelAveraging, parse_method
from thinwire.network import Network
from thinwire.steps import Steps, all_gather, all_reduce, as_it_is, compute, receive, send
from thinwire.worker import Worker, needs_server

NETWORK = Network.parse("100Mbit,1ms")


@dataclass(frozen=True, slots=True)
class Blobs:
    """Noisy classes in 12 dimensions, and a network with dropout: every part of a task, in a millisecond a step."""

    inputs: Tensor
    targets: Tensor
    name: str = "blobs"
    metric: Metric = Metric("accuracy", higher_is_better=True)
    batch_size: int = 8
    learning_rates: tuple[float, ...] = (0.1, 0.3)

    @property
    def num_train(self) -> int:
        return 200

    @property
    def labels(self) -> Tensor:
        return self.targets[:200]

    def model(self, seed: int) -> nn.Module:
        return seeded(seed, network)

    def loss(self, model: nn.Module, indices: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(self.inputs[indices]), self.targets[indices])

    def evaluate(self, model: nn.Module, split: Split) -> Evaluation:
        def measure() -> Evaluation:
            outputs, targets = model(self.inputs[200:]), self.targets[200:]
            right = (outputs.argmax(1) == targets).double().mean()
            return Evaluation(nn.functional.cross_entropy(outputs, targets).item(), right.item())

        return watched(model, measure)


class Broken(Blobs):
    """Its data are bad at the fifth batch that a process asks for."""

    __slots__ = ()

    def loss(self, model: nn.Module, indices: Tensor) -> Tensor:
        ASKED.append(len(indices))
        if len(ASKED) == 5:
            raise ZeroDivisionError("a bad batch")
        return Blobs.loss(self, model, indices)


ASKED: list[int] = []


def broken() -> Broken:
    whole = blobs()
    return Broken(whole.inputs, whole.targets, name="broken")


def network() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 12)),
        nn.Conv1d(1, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(40, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )


def blobs() -> Blobs:
    generator = torch.Generator().manual_seed(7)
    targets = torch.randint(5, (260,), generator=generator)
    centres = torch.randn(5, 12, generator=generator)
    return Blobs(centres[targets] + 0.7 * torch.randn(260, 12, generator=generator), targets)


@dataclass(frozen=True, slots=True)
class Setting:
    """One run that both engines make."""

    method: str
    steps: int = 50
    optimizer: str = "sgd"
    lr: float = 0.2


VARIANTS = (
    "qsgd:bits=2",
    "qsgd:bits=8",
    "qsgd:norm=l2,granularity=tensor,exchange=server",
    "mem-sgd:select=random",
    "mem-sgd:k=0.5",
    "mem-sgd:k=3,exchange=server",
    "local-sgd:every=3",
    "ef-signsgd:every=4,granularity=whole,exchange=server",
    "topk:density=5%,granularity=tensor",
    "topk:k=7,memory=none,exchange=server",
    "signtopk:every=8",
    "signtopk:density=10%,granularity=64",
    "qsparse:values=levels,levels=3,density=10%,every=2",
    "qsparse:values=signs,exchange=gather,select=random,density=10%",
    "qsparse:every=4,gaps=random",
    "post-local-sgd:switch=6,every=4",
    "easgd:every=3",
    "sparq:density=10%,every=2,level=20",
    "noloco:every=2",
    "d-psgd:graph=pairs",
    "motef:density=10%,momentum=0.5",
    "diloco:every=7,delay=2,mix=0.25",
    "streaming-diloco:every=3,fragments=3,delay=2",
    "sparseloco:every=4,density=10%,mean=contributors,clip=median",
    "muloco:every=4,bits=2",
    "diloco:every=4,overlap=late",
    "diloco:every=4,overlap=eager",
    "diloco:every=4,weights=norm,max_norm=0.1",
    "dilocox:every=4,rank=2",
    "sparta:density=10%",
    "cocktailsgd:random=50%,every=3",
    "des-loc:every=4,momentum=3,variance=5",
    "signtopk:density=10%,every=3,residual_dtype=bf16",
    "dgc:density=10%,residual_dtype=bf16",
    "ef21-plus:density=10%,exchange=server",
    "01-adam:warmup=4,kappa=2,period=5,most=4",
    "01-adam:warmup=4,kappa=2,period=5,most=4,exchange=gather",
    "1bit-adam:warmup=4",
    "1bit-lamb:warmup=4,exchange=gather",
)


GENTLE = ("marina", "dasha", "konecny-richtarik", "1bit-")
"""Messages of more variance, or steps of more length, than a rate that suits gradients bears."""


def fit(setting: Setting) -> Setting:
    """With an optimizer that has the moments that the method averages, or none where the method has its own."""
    method = parse_method(setting.method)
    if isinstance(method, ModelAveraging) and isinstance(method.update, DirectedUpdate):
        return replace(setting, optimizer="sgd", lr=0.001)
    averages = isinstance(method, ModelAveraging) and method.states
    if setting.method.startswith(GENTLE):
        return replace(setting, lr=0.001)
    return replace(setting, optimizer="adamw", lr=0.01) if averages else setting


COMMON = [row.name for row in CATALOG if not needs_server(parse_method(row.name))]
"""Methods that repeat bit for bit in every engine."""

# What a server sums up, with or without momentum, moves it that much further; an average must have time to follow.
_OTHERS = {
    "downpour": Setting("downpour", steps=60, lr=0.1),
    "adownpour": Setting("adownpour", steps=60, lr=0.1),
    "mdownpour": Setting("mdownpour:momentum=0.5", steps=60, lr=0.05),
    "mvadownpour": Setting("mvadownpour:rate=0.05", steps=60, lr=0.1),
}
ASYNCHRONOUS = [
    _OTHERS.get(row.name, Setting(row.name, steps=60)) for row in CATALOG if needs_server(parse_method(row.name))
]

SETTINGS: dict[int, list[Setting]] = {
    # Everything with four workers, where the time goes; with momentum, a third of it with each other number.
    4: [
        *(fit(Setting(name)) for name in COMMON),
        *(fit(Setting(method, steps=24)) for method in VARIANTS),
        *(Setting(method, steps=10, optimizer="adamw", lr=0.01) for method in ("sgd", "qsparse:every=4")),
        *(Setting(method, steps=8, lr=1e30) for method in ("sgd", "topk", "qsparse:every=4", "qsgd")),
    ],
    3: [fit(Setting(name, steps=12, optimizer="sgd:momentum=0.9")) for name in COMMON[0::3]],
    2: [fit(Setting(name, steps=12, optimizer="sgd:momentum=0.9")) for name in COMMON[1::3]],
    1: [fit(Setting(name, steps=12, optimizer="sgd:momentum=0.9")) for name in COMMON[2::3]],
    8: [Setting(method, steps=10) for method in ("sgd", "qsgd", "signtopk:every=3", "qsparse:every=2")],
}
GROUPS = {8: [*range(8)], 4: [0, 1, 2, 3], 3: [4, 5, 6], 1: [7], 2: [6, 7]}
"""One launch of eight processes serves every number of workers; disjoint groups train side by side."""


def train(make: Callable[[], Engine], name: str, setting: Setting, folder: Path, cut: bool = False) -> dict[str, Any]:
    """Records, and the final state of every local worker by its rank; ``cut`` interrupts and resumes it half-way."""
    engine = make()
    comparison = Comparison(
        methods=(setting.method,),
        task="blobs",
        workers=engine.size,
        lrs=(setting.lr,),
        engine="simulate" if name == "simulate" else "processes",
        network=NETWORK,
        steps=setting.steps,
        tune_steps=setting.steps,
        evaluate_every=max(1, setting.steps // 2),
        batch_size=8,
        optimizers=(setting.optimizer,),
    )
    run = Run(setting.method, comparison.settings(setting.method)[0], 3, "final", setting.steps)
    folder = folder / f"{name}-{engine.size}" / run.name
    session = Session(comparison, run, blobs(), engine, folder)
    if cut:
        for record in session.records():
            if record["step"] == comparison.evaluate_every:
                session.save(record["step"])
                break
        engine = make()
        session = Session(comparison, run, blobs(), engine, folder)
    records = list(session.records())
    workers = {
        worker.rank: {
            "model": worker.model.state_dict(),
            "optimizer": worker.optimizer.state_dict(),
            "worker": worker.state_dict(),
            "traffic": [link.bytes_sent, link.bytes_received],
        }
        for worker, link in zip(session.workers, engine.traffic(), strict=True)
    }
    return {"records": records, "workers": workers}


def train_all(folder: str, everyone: Transport) -> None:
    for size, ranks in GROUPS.items():
        group = dist.new_group(ranks)
        if everyone.rank in ranks:
            transport = Transport(group)
            engine = functools.partial(ProcessEngine, transport)
            runs = [train(engine, "processes", setting, Path(folder), size == 3) for setting in SETTINGS[size]]
            save(runs, Path(folder, f"runs-{size}-{transport.rank}.pt"))
            transport.close()
        if size == 2 and everyone.rank in ranks:
            scripts = [script(group, method, Path(folder)) for method in SCRIPTS]
            save(scripts, Path(folder, f"scripts-{dist.get_rank(group)}.pt"))


def train_asynchronously(folder: str, transport: Transport) -> None:
    """The last process is the server."""
    engine = functools.partial(ProcessEngine, transport, True)
    runs = [train(engine, "processes", setting, Path(folder)) for setting in ASYNCHRONOUS]
    save(runs, Path(folder, f"rank-{transport.rank}.pt"))


def save(value: Any, path: Path) -> None:
    torch.save(value, path)


def saved(path: Path) -> Any:
    return torch.load(path, weights_only=False)


# A user's own training script.

SCRIPTS = ("sgd", "qsgd:bits=4", "topk:density=5%", "qsparse:every=3,exchange=server")
SCRIPT_STEPS, SCRIPT_CUT = 10, 4


def script_model(seed: int) -> nn.Module:
    """Its buffers differ from seed to seed too."""
    model = seeded(seed, lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)))
    model.get_buffer("1.running_mean").fill_(float(seed))
    return model


def script_loss(model: nn.Module, step: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + rank)
    loss: Tensor = model(torch.randn(7, 6, generator=generator)).square().mean()
    return loss


def script_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)


def script(group: dist.ProcessGroup, method: str, folder: Path) -> dict[str, Any]:
    rank = dist.get_rank(group)
    model = script_model(seed=rank)
    optimizer = DistributedOptimizer(script_optimizer(model), model, method, group=group, seed=5)
    start = copies(model.state_dict())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = script_loss(model, step, rank)
        loss.backward()
        return loss

    losses = []
    middle: dict[str, Any] = {}
    for step in range(SCRIPT_STEPS):
        if step == SCRIPT_CUT:
            path = folder / f"middle-{rank}.pt"
            save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
            middle = torch.load(path, weights_only=True)
        if step % 2:
            loss = optimizer.step(closure)
            assert loss is not None
            losses.append(loss)
        else:
            losses.append(closure())
            assert optimizer.step() is None
    end = {"model": model.state_dict(), "worker": optimizer.worker.state_dict()}
    counts = [optimizer.message_bytes, optimizer.bytes_sent, optimizer.bytes_received]
    optimizer.close()

    model = script_model(seed=rank + 10)
    optimizer = DistributedOptimizer(script_optimizer(model), model, method, group=group, seed=5)
    model.load_state_dict(middle["model"])
    optimizer.load_state_dict(middle["optimizer"])
    for step in range(SCRIPT_CUT, SCRIPT_STEPS):  # noqa: B007 (the closure reads it)
        closure()
        optimizer.step()
    resumed = {"model": model.state_dict(), "worker": optimizer.worker.state_dict()}
    optimizer.close()
    return {"start": start, "losses": torch.stack(losses).detach(), "end": end, "counts": counts, "resumed": resumed}


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


# Requests, each kind on its own.

LENGTHS = ([0, 5, 1000], [0, 0, 0], [1, 0, 0], [70_000, 70_001, 3])
NUMELS = (0, 1, 2, 3, 7, 1000)
LETTERS = [(0, 1, 4), (0, 2, 0), (2, 1, 9), (0, 1, 0), (0, 2, 6), (0, 1, 2), (1, 0, 5), (2, 0, 0)]


def message(seed: int, num_bytes: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (num_bytes,), dtype=torch.uint8, generator=generator)


def vector(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gathers(rank: int) -> Steps[list[Any]]:
    results = []
    for lengths in LENGTHS:
        gathered = yield from all_gather(message(rank, lengths[rank]), lambda got: [part.clone() for part in got])
        results.append(gathered)
    return results


def bounded_gathers(rank: int) -> Steps[list[Any]]:
    """Of messages whose greatest length is known: to all workers, twice, or each thinks of another."""
    results = []
    for lengths in LENGTHS * 2:
        for limit in (max(lengths), 80_000, 90_000 + rank):
            gathered = yield from all_gather(
                message(rank, lengths[rank]), lambda got: [part.clone() for part in got], max_num_bytes=limit
            )
            results.append(gathered)
    return results


def reductions(rank: int) -> Steps[list[Tensor]]:
    results = []
    for numel in NUMELS:
        results.append((yield from all_reduce(vector(rank, numel))))
    results.append((yield from all_reduce(vector(rank, 4, 5).t())))
    return results


def reductions_in_place(rank: int) -> Steps[list[Tensor]]:
    """What is handed over is overwritten by the next piece, while others still are to be added to it."""
    results = []
    for numel in (*NUMELS, 1_000_003):
        for dtype in (torch.float32, torch.bfloat16):
            own = vector(rank, numel).to(dtype)
            results.append((yield from all_reduce(own, divisor=3, in_place=True)).clone())
    return results


def letters(rank: int) -> Steps[list[Tensor]]:
    """Everybody sends its letters, spends some time, then reads its mail, sender by sender."""
    for number, (source, destination, num_bytes) in enumerate(LETTERS):
        if source == rank:
            yield from send(destination, message(number, num_bytes))
    yield from compute(0.5)
    got = []
    for sender in range(3):
        for source, destination, _ in LETTERS:
            if destination == rank and source == sender:
                got.append((yield from receive(sender, as_it_is)))
    return got


PROGRAMS: tuple[Callable[[int], Steps[Any]], ...] = (
    gathers, reductions, letters, bounded_gathers, reductions_in_place,
)  # fmt: skip


def request_by_collectives(folder: str, transport: Transport) -> None:
    """Sums and gathers by the backend's own collectives: here those of gloo, on the CPU."""
    group = dist.group.WORLD
    assert group is not None
    transport.fabric = Fabric(group, torch.device("cpu"))
    found = []
    for program in PROGRAMS:
        before = transport.traffic
        answer = transport.run(program(transport.rank))
        now = transport.traffic
        found.append((answer, (now.bytes_sent - before.bytes_sent, now.bytes_received - before.bytes_received)))
    refused = []
    for limit in (10, 1 << 20):
        try:
            transport.fabric.gather(torch.zeros(limit + transport.rank, dtype=torch.uint8), limit)
        except ProtocolError as error:
            refused.append(str(error))
            if limit == 10:  # it was not sent, and the others wait for as much of it as was agreed
                transport.fabric.gather(torch.zeros(limit, dtype=torch.uint8), limit)
    save({"programs": found, "refused": refused}, Path(folder, f"rank-{transport.rank}.pt"))


def ask_for_nccl(transport: Transport) -> None:
    Transport(options=LinkOptions(transport="nccl"))


def request_everything(folder: str, transport: Transport) -> None:
    results: list[Any] = []
    for program in PROGRAMS:
        before = transport.traffic
        answer = transport.run(program(transport.rank))
        now = transport.traffic
        link = (now.bytes_sent - before.bytes_sent, now.bytes_received - before.bytes_received)
        results.append((answer, link))
    own = vector(transport.rank, 1000)
    is_in_place = transport.run(all_reduce(own, in_place=True)).data_ptr() == own.data_ptr()
    kept = sum(len(peer.outgoing) for peer in transport._links.peers.values())
    astray = []
    for peer in (transport.rank, transport.size, -1):
        try:
            transport.run(letter_to(peer))
        except ProtocolError as error:
            astray.append(str(error))
    before = transport.traffic
    shared = transport.share([transport.rank, 0.1, float("inf")]), transport.share([])
    uneven = transport.share([1.5] * transport.rank)
    mine = [torch.full((3,), float(transport.rank)), torch.tensor(transport.rank), torch.empty(0)]
    transport.broadcast_(mine)
    pair = dist.new_group([1, 2])
    of_pair = None
    if transport.rank > 0:
        small = Transport(pair)
        of_pair = small.rank, small.size, small.run(one_gather(small.rank)), small.traffic
        small.close()
    found = {
        "programs": results,
        "kept": kept,
        "in_place": is_in_place,
        "astray": astray,
        "shared": shared,
        "uneven": uneven,
        "broadcast": mine,
        "pair": of_pair,
        "free": transport.traffic == before,
    }
    save(found, Path(folder, f"rank-{transport.rank}.pt"))


def letter_to(peer: int) -> Steps[None]:
    yield from send(peer, message(0, 3))


def one_gather(rank: int) -> Steps[list[Tensor]]:
    return (yield from all_gather(message(rank, 3 + rank), list))


# Failures.


def fails(folder: str, kind: str, transport: Transport) -> None:
    """Worker 1 fails in the given way while the others wait for its message."""
    Path(folder, f"pid-{transport.rank}").write_text(str(os.getpid()))
    transport.share([])
    if transport.rank == 1:
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ThinwireError("the cable was cut") if kind == "own" else ZeroDivisionError("one over nothing")
    transport.run(reductions(transport.rank))


def long_message(folder: str, kind: str, transport: Transport) -> None:
    """Worker 1 sends more than was agreed; nobody takes memory for it."""
    num_bytes = 101 if transport.rank == 1 else 100

    def program() -> Steps[None]:
        if kind == "later gather":
            yield from all_gather(message(0, 100), len, max_num_bytes=100)
        if "gather" in kind:
            yield from all_gather(message(0, num_bytes), len, max_num_bytes=100)
        elif transport.rank == 1:
            for peer in (0, 2):
                yield from send(peer, message(0, num_bytes))
        else:
            yield from receive(1, as_it_is, max_num_bytes=100)

    transport.run(program())


NAN_METHODS = ("sgd", "qsgd", "topk:k=2", "qsparse:exchange=server", "ef-signsgd")


def nan_gradient(folder: str, transport: Transport) -> None:
    """Worker 1's third gradient holds a NaN, method after method; every worker learns of it at that step."""
    found = []
    for text in NAN_METHODS:
        model = seeded(0, lambda: nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        worker = Worker(parse_method(text), model, optimizer, rank=transport.rank, size=transport.size, seed=0)
        for step in range(4):
            worker.optimizer.zero_grad()
            model(torch.ones(1, 4)).sum().backward()
            if (transport.rank, step) == (1, 2):
                grad = model.get_parameter("weight").grad
                assert grad is not None
                grad[0, 1] = float("nan")
            try:
                transport.run(worker.step())
            except NumericsError as error:
                found.append((step, str(error)))
                break
    save(found, Path(folder, f"nan-{transport.rank}.pt"))
    transport.share([])
    raise NumericsError(found[-1][1])


def equal(first: Any, second: Any) -> bool:
    """Bit for bit, through dicts, lists and tensors."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.dtype != second.dtype or not torch.equal(first.isnan(), second.isnan()):
            return False
        return torch.equal(first.masked_fill(first.isnan(), 0), second.masked_fill(second.isnan(), 0))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, Sequence) and isinstance(second, Sequence) and not isinstance(first, str):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)
