"""What the processes of the tests of links run, and how they start; a module of its own, so that they can import it.

A main is called as ``main(rank, size, *args)`` in each process of a crew, with a process group; what it returns, or the
error that ends it, is the crew's outcome of that rank.
"""

import contextlib
import functools
import os
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import LinkOptions, Transport, introduction
from thinwire.distributed.doors import Door
from thinwire.distributed.links import Links
from thinwire.distributed.mail import Tag
from thinwire.distributed.peer import Peer
from thinwire.distributed.starting_point import broadcast_parameters
from thinwire.experiments.launch import end_with_parent
from thinwire.experiments.processes import process_context
from thinwire.steps import Steps, all_gather, all_reduce

DEADLINE_S = 60.0
"""What takes longer hangs."""

SOON_S = 45.0
"""Within which an end is noticed, on the slowest machine."""

# How processes are started.


@dataclass(frozen=True)
class Outcome:
    """How a process ended: with a value, with an error of some class, or by a signal."""

    value: Any = None
    error: str = ""
    text: str = ""
    seconds: float = 0.0


class Crew:
    """Processes of one group that run the same main, each as a copy of one that has imported torch."""

    def __init__(
        self, folder: Path, main: Callable[..., Any], size: int, *args: Any, group_timeout_s: float = DEADLINE_S,
        backend: str = "gloo",
    ) -> None:  # fmt: skip
        self._folder = Path(tempfile.mkdtemp(dir=folder))
        self.size = size
        more = (str(self._folder), group_timeout_s, backend)
        self.processes = [
            process_context().Process(target=_child, args=(main, rank, size, args, *more), daemon=True)  # type: ignore[attr-defined]
            for rank in range(size)
        ]
        for process in self.processes:
            process.start()

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *args: object) -> None:
        """Nobody is left: one that is stopped would keep the tests from ending."""
        (self._folder / "noticed").touch()  # ends children of those that were killed
        for process in self.processes:
            process.kill()
            process.join()

    def pid(self, rank: int) -> int:
        return int(self.processes[rank].pid)

    def wait_for(self, flag: str) -> None:
        """Until some process has raised the flag, see :func:`raise_flag`."""
        deadline = time.monotonic() + DEADLINE_S
        while not (self._folder / flag).exists():
            assert time.monotonic() < deadline, f"nobody raised {flag}"
            time.sleep(0.005)

    def outcomes(self, ranks: Sequence[int] | None = None) -> list[Outcome]:
        """Of these processes, once they have ended, and of all others, which are killed."""
        deadline = time.monotonic() + DEADLINE_S
        for rank in range(self.size) if ranks is None else ranks:
            self.processes[rank].join(max(0.0, deadline - time.monotonic()))
        hanging = [process.exitcode is None for process in self.processes]
        self.__exit__()
        return [self._outcome(rank, hangs) for rank, hangs in enumerate(hanging)]

    def _outcome(self, rank: int, hangs: bool) -> Outcome:
        path = self._folder / f"outcome-{rank}.pt"
        if path.exists():
            return Outcome(**torch.load(path, weights_only=False))
        return Outcome(error="hangs" if hangs else f"exit code {self.processes[rank].exitcode}")


def run(folder: Path, main: Callable[..., Any], size: int, *args: Any, **options: Any) -> list[Outcome]:
    """What a crew comes to."""
    with Crew(folder, main, size, *args, **options) as crew:
        return crew.outcomes()


def raise_flag(flag: str) -> None:
    """For who waits outside."""
    (_folder() / flag).touch()


def wait_for(flag: str) -> None:
    """Until another process has raised the flag."""
    deadline = time.monotonic() + DEADLINE_S
    while not (_folder() / flag).exists() and time.monotonic() < deadline:
        time.sleep(0.005)


def _folder() -> Path:
    return Path(os.environ["THINWIRE_TEST_FOLDER"])


def _child(
    main: Callable[..., Any], rank: int, size: int, args: tuple[Any, ...], folder: str, timeout_s: float, backend: str
) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    os.environ["THINWIRE_TEST_FOLDER"] = folder
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    _offer_bare_backend()
    store = dist.FileStore(str(Path(folder, "store")), size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout_s))
    begin = time.monotonic()
    found: dict[str, Any]
    try:
        found = {"value": main(rank, size, *args)}
    except BaseException as error:
        found = {"error": type(error).__name__, "text": str(error)}
    found["seconds"] = time.monotonic() - begin
    partial = Path(folder, f"partial-{rank}.pt")
    torch.save(found, partial)
    os.replace(partial, Path(folder, f"outcome-{rank}.pt"))
    os._exit(0)  # as a process that is killed now: nobody closes what a main has left open


def raised(work: Callable[[], object]) -> tuple[str, str, float]:
    """The class and the text of what it raises, and after how many seconds."""
    begin = time.monotonic()
    try:
        work()
    except BaseException as error:
        return type(error).__name__, str(error), time.monotonic() - begin
    return "", "", time.monotonic() - begin


# A backend in Python that can gather over the store, and nothing else.


class _Done(dist._Work):
    def wait(self, timeout: timedelta = timedelta()) -> bool:
        return True


class BareGroup(dist.ProcessGroup):
    """Nothing but ``all_gather``."""

    def __init__(self, store: Any, rank: int, size: int) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]  # the stub knows another one only
        self._store = store
        self._count = 0

    def getBackendName(self) -> str:
        return "bare"

    def allgather(  # type: ignore[override]  # one of its forms
        self, outputs: list[list[Tensor]], inputs: list[Tensor], options: Any = None
    ) -> "_Done":
        self._count += 1
        self._store.set(f"bare-{self._count}-{self.rank()}", inputs[0].numpy().tobytes().hex())
        for rank, output in enumerate(outputs[0]):
            text = bytes.fromhex(self._store.get(f"bare-{self._count}-{rank}").decode())
            output.copy_(torch.frombuffer(bytearray(text), dtype=output.dtype).view(output.shape))
        return _Done()


def _make_bare(store: Any, rank: int, size: int, timeout: timedelta) -> BareGroup:
    return BareGroup(store, rank, size)


def _offer_bare_backend() -> None:
    dist.Backend.register_backend("bare", _make_bare, devices=["cpu"])


# A small training.


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3))


def loss_of(model: Callable[[Tensor], Tensor], step: int, rank: int) -> Tensor:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1000 * step + rank))
    loss: Tensor = (model(x) - x[:, :3].sin()).square().mean()
    return loss


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def train(rank: int, method: str, steps: int, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
    model = network(seed=rank)
    optimizer = sgd(model)
    with thinwire.synchronize(optimizer, model, method, group=group):
        for step in range(steps):
            optimizer.zero_grad()
            loss_of(model, step, rank).backward()
            optimizer.step()
    return {name: param.detach().clone() for name, param in model.named_parameters()}


def trains(rank: int, size: int, methods: Sequence[str], steps: int) -> list[dict[str, Tensor]]:
    return [train(rank, method, steps) for method in methods]


# What processes must agree on.

Call = Callable[[nn.Module], Any]


def _synchronize(method: str = "topk:density=10%", **more: Any) -> Call:
    return lambda model: thinwire.synchronize(sgd(model), model, method, **more)


def _compress(method: str = "topk:density=10%", **more: Any) -> Call:
    return lambda model: thinwire.compress_ddp(DistributedDataParallel(model), method, **more)


def _compress_frozen(model: nn.Module) -> Any:
    wrapped = DistributedDataParallel(model)
    model.get_parameter("0.weight").requires_grad_(False)
    return thinwire.compress_ddp(wrapped, "topk:density=10%")


def _synchronize_wrapped(model: nn.Module) -> Any:
    DistributedDataParallel(model)  # the others wait for it
    return _synchronize()(model)


def deep(width: int) -> nn.Module:
    """Of many tensors, the last of which have a width of their own."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(200)), nn.Linear(4, width))


def frozen() -> nn.Module:
    model = network()
    model.get_parameter("0.weight").requires_grad_(False)
    return model


def renamed() -> nn.Module:
    model = network()
    first, second, third = model.children()
    return nn.Sequential(first, second, nn.Identity(), third)


def doubled() -> nn.Module:
    return network().to(torch.float64)


DISAGREEMENTS: dict[str, tuple[str, tuple[str, str], Call, Call, Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    # What differs as an error names it, what it shows of both, the two calls, and the two models.
    "method": (
        "method", ("density=0.1,", "density=0.2,"), _synchronize(),
        _synchronize("topk:density=20%"), network, network,
    ),
    "seed": ("seed", ("3", "4"), _synchronize(seed=3), _synchronize(seed=4), network, network),
    "shape": ("model", ("2.weight (3, 20)", "2.weight (5, 20)"), _synchronize(), _synchronize(), network,
              lambda: nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 5))),
    "name": ("model", ("2.weight (3, 20)", "3.weight (3, 20)"), _synchronize(), _synchronize(), network, renamed),
    "dtype": ("model", ("float32", "float64"), _synchronize(), _synchronize(), network, doubled),
    "frozen": ("model", ("0.weight (20, 6) float32 (worker", "0.weight (20, 6) float32 frozen"), _synchronize(),
               _synchronize(), network, frozen),
    "the end of a deep model": ("model", ("200.weight (3, 4)", "200.weight (7, 4)"), _synchronize(), _synchronize(),
                                lambda: deep(3), lambda: deep(7)),
    "guard": ("guard", ("None", "every=7"), _synchronize(), _synchronize(guard=thinwire.ReplicaGuard(every=7)),
              network, network),
    "encryption": ("links", ("encrypt=True", "encrypt=False"), _synchronize(),
                   _synchronize(links=LinkOptions(encrypt=False)), network, network),
    "hook: method": ("method", ("density=0.1,", "density=0.2,"), _compress(),
                     _compress("topk:density=20%"), network, network),
    "hook: seed": ("seed", ("0", "9"), _compress(), _compress(seed=9), network, network),
    "hook: frozen": ("model", ("0.weight (20, 6) float32 (worker", "0.weight (20, 6) float32 frozen"), _compress(),
                     _compress_frozen, network, network),
    "form": ("form", ("compress_ddp", "synchronize"), _compress(), _synchronize_wrapped, network, network),
    "hook: guard": ("guard", ("every=7", "every=8"), _compress(guard=thinwire.ReplicaGuard(every=7)),
                    _compress(guard=thinwire.ReplicaGuard(every=8)), network, network),
    "hook: policy": ("policy", ("below=17", "below=18"), _compress(policy=thinwire.DensePolicy(below=17)),
                     _compress(policy=thinwire.DensePolicy(below=18)), network, network),
    "hook: warn_if_slower": ("warn_if_slower", ("True", "False"), _compress(), _compress(warn_if_slower=False),
                             network, network),
}  # fmt: skip


def disagree(rank: int, size: int, names: Sequence[str]) -> dict[str, tuple[str, str, float]]:
    """Of each disagreement, what this process raises; the last process differs from all others."""
    found = {}
    for name in names:
        _, _, *calls, make, make_last = DISAGREEMENTS[name]
        call, make = (calls[1], make_last) if rank == size - 1 else (calls[0], make)
        found[name] = raised(functools.partial(call, make()))
    return found


# Models that begin alike.


class Zoo(nn.Module):
    """Tensors of many kinds."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        normal = functools.partial(torch.randn, generator=generator)
        self.large = nn.Parameter(normal(700_000))  # several pieces
        self.turned = nn.Parameter(normal(30, 50).t())
        self.image = nn.Parameter(normal(4, 3, 5, 6).contiguous(memory_format=torch.channels_last))
        self.strided = nn.Parameter(normal(40)[::2])
        self.short = nn.Parameter(normal(33).bfloat16())
        self.scalar = nn.Parameter(normal(()))
        self.long = nn.Parameter(normal(5, 5).double())
        self.register_buffer("count", torch.randint(1 << 60, (), generator=generator))
        self.register_buffer("mask", normal(77) > 0)
        self.register_buffer("octets", torch.randint(256, (5,), dtype=torch.uint8, generator=generator))
        self.register_buffer("waves", torch.complex(normal(3), normal(3)))
        self.register_buffer("nothing", torch.empty(0, 3))


BEGINNINGS: dict[str, dict[int, tuple[str, ...]]] = {
    # Which tensors of which process are not those of the others.
    "equal": {},
    "of the first": {0: ("short", "mask")},
    "of the last": {-1: ("turned", "count", "image")},
    "of several": {1: ("large", "scalar"), 2: ("waves", "scalar")},
    "all": {-1: ("*",)},
}


@dataclass(frozen=True)
class Beginning:
    """What came of one."""

    num_bytes: int
    sent_bytes: int
    differing_bytes: int
    state: dict[str, Tensor]
    first: dict[str, Tensor]
    keeps_strides: bool


def begin(rank: int, size: int, sizes: Sequence[int]) -> dict[int, dict[str, Beginning]]:
    """Every beginning, in groups of so many processes."""
    found: dict[int, dict[str, Beginning]] = {}
    for count in sizes:
        group = dist.new_group(list(range(count)))
        if rank < count:
            transport = Transport(group)
            found[count] = {name: _begin(transport, differ) for name, differ in BEGINNINGS.items()}
            transport.close()
    return found


def _begin(transport: Transport, differ: dict[int, tuple[str, ...]]) -> Beginning:
    own = {rank % transport.size: names for rank, names in differ.items() if rank < transport.size}
    models = []
    for rank in range(transport.size):
        model, other = Zoo(0).state_dict(), Zoo(rank + 1).state_dict()
        names = own.get(rank, ())
        models.append({name: (other if name in names or "*" in names else model)[name] for name in model})
    module = Zoo(0)
    for name, tensor in module.state_dict().items():
        tensor.copy_(models[transport.rank][name])
    strides = {name: tensor.stride() for name, tensor in module.state_dict().items()}
    differing = [name for name in strides if any(not torch.equal(each[name], models[0][name]) for each in models)]
    sent: list[int] = []
    with _watched_sends(transport, sent):
        num_bytes = broadcast_parameters(transport, module)
    state = module.state_dict()
    return Beginning(
        num_bytes=num_bytes,
        sent_bytes=sum(sent),
        differing_bytes=sum(state[name].nbytes for name in differing),
        state={name: tensor.clone() for name, tensor in state.items()},
        first=models[0],
        keeps_strides=all(tensor.stride() == strides[name] for name, tensor in state.items()),
    )


@contextlib.contextmanager
def _watched_sends(transport: Transport, sent: list[int]) -> Iterator[None]:
    """Notes the length of every part of a model that is sent."""
    links = transport._links
    send = links.send

    def noted(rank: int, tag: Tag, message: Tensor, **more: Any) -> None:
        if tag == Tag.MODEL:
            sent.append(message.numel())
        send(rank, tag, message, **more)

    links.send = noted  # type: ignore[method-assign]
    yield
    links.send = send  # type: ignore[method-assign]


# Groups, ports, leaks.


def among_groups(rank: int, size: int) -> dict[str, Tensor]:
    """A script that has made groups of its own, which not every process is in."""
    dist.new_group([0])
    if rank == 1:
        dist.distributed_c10d._get_default_store().set("mine", "1")
    dist.new_group([size - 1])
    return train(rank, "topk:density=10%", 3)


def waits_for_the_groups_timeout(rank: int, size: int) -> tuple[str, str, float]:
    """Process 1 computes for longer than the script's timeout."""
    model = network()
    optimizer = sgd(model)
    thinwire.synchronize(optimizer, model, "sgd")
    if rank == 1:
        wait_for("noticed")
        return "", "", 0.0
    loss_of(model, 0, rank).backward()
    found = raised(optimizer.step)
    raise_flag("noticed")
    return found


def counts() -> tuple[int, int]:
    """Threads and open files of this process."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def many_handles(rank: int, size: int, few: int, many: int) -> list[tuple[int, int]]:
    """How many threads and files there are after a few handles of each kind, and after many."""
    found = []
    wrapped = DistributedDataParallel(network())
    for number in range(many):
        if number in (few, many - 1):
            found.append(counts())
        model = network()
        optimizer = sgd(model)
        with thinwire.synchronize(optimizer, model, "topk:density=10%"):
            loss_of(model, number, rank).backward()
            optimizer.step()
        if number % 5 == 0:
            wrapped = DistributedDataParallel(network())
            handle = thinwire.compress_ddp(wrapped, "topk:density=10%", warn_if_slower=False)
            loss_of(wrapped, number, rank).backward()
            handle.close()
            del wrapped, handle  # DDP's reducer keeps the hook
    return found


def until(holds: Callable[[], bool]) -> bool:
    """Whether it holds before the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def listening() -> set[str]:
    """The addresses at which this process's TCP sockets listen.

    Each socket is asked: the machine's table of all has gaps while other processes open and close theirs.
    """
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.stat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as asked:
                if asked.family in (socket.AF_INET, socket.AF_INET6) and is_listening(asked):
                    found.add(str(asked.getsockname()))
    return found


def is_listening(asked: socket.socket) -> bool:
    return bool(asked.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def listens(rank: int, size: int, temporary: str) -> tuple[set[str], list[str], list[list[float]]]:
    """The sockets that listen because of links, what these leave in the file system, and whether they work."""
    tempfile.tempdir = temporary
    before = listening()  # the group's own
    transport = Transport()
    transport.share([])  # all are through
    until(lambda: listening() <= before)  # ZeroMQ closes the port in a thread of its own
    found = listening() - before, os.listdir(temporary), transport.share([float(rank)])
    transport.close()
    return found


def firsts(rank: int, size: int, count: int) -> dict[str, Any]:
    """Programs of the first processes while the others are further on, or do something else."""
    transport = Transport()
    small = transport.first(count)
    seen: list[list[int]] = []

    def program(number: int) -> Steps[None]:
        message = torch.full((3 + rank,), number, dtype=torch.uint8)
        seen.append((yield from all_gather(message, lambda got: [each.numel() for each in got])))

    for number in range(20):
        if small is not None:
            small.run(program(number))
    shared = transport.share([float(rank)])
    if small is not None:
        small.run(program(0))
    together = transport.run(_together(rank))
    found = {
        "is of them": small is not None,
        "seen": seen,
        "shared": shared,
        "together": together,
        "traffic": None if small is None else small.traffic,
        "whole traffic": transport.traffic,
    }
    transport.close()
    return found


def _together(rank: int) -> Steps[Tensor]:
    return (yield from all_reduce(torch.full((5,), float(rank))))


# Handles that cannot be used any more.


def after_a_fork(rank: int, size: int, temporary: str) -> dict[str, tuple[str, str]]:
    """What uses of handles that were made before a fork come to in the copy of a process."""
    model, other = network(), network()
    optimizer = sgd(model)
    sync = thinwire.synchronize(optimizer, model, "topk:density=10%")
    wrapped = DistributedDataParallel(other)
    hook = thinwire.compress_ddp(wrapped, "topk:density=10%", warn_if_slower=False)
    loss_of(wrapped, 0, rank).backward()
    checkpoints = thinwire.Checkpoints(temporary, {"model": model, "thinwire": sync})
    loss_of(model, 0, rank).backward()
    uses: dict[str, Callable[[], object]] = {
        "share": lambda: sync.transport.share([1.0]),
        "step": optimizer.step,
        "save": lambda: checkpoints.save(1),
        "hook": hook.transport.check,  # the backward pass itself waits for threads of gloo that are not there
        "close": sync.close,
        "close hook": hook.close,
    }
    found = {name: _in_a_copy(use) for name, use in uses.items()}
    sync.transport.share([])  # the links are as they were
    loss_of(wrapped, 1, rank).backward()
    hook.close()
    sync.close()
    return found


def _in_a_copy(use: Callable[[], object]) -> tuple[str, str]:
    hears, tells = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(SOON_S))  # ends it
        kind, text, _ = raised(use)
        os.write(tells, f"{kind}\n{text}".encode()[:4000])
        os._exit(0)
    os.close(tells)
    with os.fdopen(hears, "rb") as file:
        kind, _, text = file.read().decode().partition("\n")
    _, status = os.waitpid(pid, 0)
    return ("hangs", "") if status else (kind, text)


def after_closing(rank: int, size: int, temporary: str) -> dict[str, tuple[str, str, float]]:
    model = network()
    optimizer = sgd(model)
    with thinwire.synchronize(optimizer, model, "topk:density=10%") as sync:
        loss_of(model, 0, rank).backward()
        optimizer.step()
        checkpoints = thinwire.Checkpoints(temporary, {"model": model, "thinwire": sync})
    return {
        "share": raised(lambda: sync.transport.share([1.0])),
        "run": raised(lambda: sync.transport.run(_together(rank))),
        "save": raised(lambda: checkpoints.save(1)),
        "load": raised(checkpoints.load),
        "close": raised(sync.close),
        "abort": raised(lambda: sync.transport.abort("too late")),
        "step": raised(optimizer.step),  # the script's own again
    }


def backward_after_closing(rank: int, size: int) -> tuple[str, str, float]:
    wrapped = DistributedDataParallel(network())
    hook = thinwire.compress_ddp(wrapped, "topk:density=10%", warn_if_slower=False)
    loss_of(wrapped, 0, rank).backward()
    hook.close()
    return raised(lambda: loss_of(wrapped, 1, rank).backward())


# Ends.

ENDS = ("raise", "kill", "stop", "leave", "fork and kill")
FORMS = ("gather", "local steps", "server exchange", "hook", "serve")
METHODS = {
    "gather": "topk:density=10%", "local steps": "signtopk:density=10%,every=3",
    "server exchange": "topk:density=10%,exchange=server", "serve": "qsparse-async:every=2,density=50%",
}  # fmt: skip


def dies_while_they_meet(rank: int, size: int) -> tuple[str, str, float]:
    """Process 0 has greeted the other one, which has reached it too, and is killed before it welcomes."""

    def die(door: Door, peers: dict[int, Peer], cards: list[introduction.Card], rank: int, limit_s: float) -> None:
        (peer,) = peers.values()
        assert peer.monitor.poll(int(1000 * DEADLINE_S))
        os.kill(os.getpid(), signal.SIGKILL)

    if rank == 0:
        introduction._meet = die
    return raised(Transport)


def trains_until(rank: int, size: int, form: str, victim: int, end: str, timeout_s: float) -> Any:
    """Trains for ever in some form; the victim ends in its seventh step, in a way that it is told."""
    links = LinkOptions(timeout=timedelta(seconds=timeout_s))
    model = network()
    if form == "serve" and rank == size - 1:
        return thinwire.serve(model, METHODS[form], num_steps=10**6, links=links)
    optimizer = sgd(model)
    called: Callable[[Tensor], Tensor] = model
    if form == "hook":
        called = DistributedDataParallel(model, bucket_cap_mb=0.0003)
        handle: Any = thinwire.compress_ddp(called, "topk:density=10%", warn_if_slower=False, links=links)
    else:
        handle = thinwire.synchronize(optimizer, model, METHODS[form], links=links)
    with handle:
        for step in range(10**6):
            if rank == victim and step == 7:
                if end == "leave":
                    break
                _end(end)
            optimizer.zero_grad()
            loss_of(called, step, rank).backward()
            optimizer.step()
    raise_flag("left")
    wait_for("noticed")  # its process goes on


def _end(how: str) -> None:
    if how == "raise":
        raise ValueError("a bad batch")
    if how == "fork and kill" and os.fork() == 0:
        wait_for("noticed")  # a loader of data, say, which lives on and has copies of all open files
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP if how == "stop" else signal.SIGKILL)


def waits(rank: int, size: int, form: str, victim: int) -> Any:
    """As :func:`trains_until`, and tells when it waits for the one that stopped."""
    wait, count = Links._wait, 0

    def noted(self: Links, ranks: Collection[int], tags: Sequence[Tag], needs_all: bool) -> bool:
        nonlocal count
        came = wait(self, ranks, tags, needs_all)
        count = 0 if came else count + 1
        if count == 2:  # half a second without anything
            raise_flag("waits")
        return came

    if rank != victim:
        Links._wait = noted  # type: ignore[method-assign]
    return trains_until(rank, size, form, victim, "stop", DEADLINE_S)
