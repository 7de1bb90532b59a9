"""What the processes of the guard's and the clock's tests run; a module of its own, so that they can import it."""

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from thinwire.compressors import TopK, Traits
from thinwire.distributed import CompressedGradients, DensePolicy, Synchronizer, Transport, compress_ddp, synchronize
from thinwire.distributed.guard import GuardedReplicas, ReplicaGuard
from thinwire.distributed.links import Links
from thinwire.distributed.replicas import guard_module, guard_worker
from thinwire.errors import DivergenceError
from thinwire.exchanges import gather
from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback
from thinwire.methods import GradientAveraging, Method, parse_method
from thinwire.payloads import Payload
from thinwire.random import Key
from thinwire.worker import Worker
from thinwire.worker.layer_report import JsonLines, LayerReport
from thinwire.worker.step_times import StepClock

STEPS, EVERY = 12, 3


@dataclass(frozen=True)
class Setting:
    """One training of all processes, in which something of some of them is damaged after a step."""

    method: str
    on_difference: str | None = "resync"
    optimizer: str = "sgd"
    damage: str = "parameter"
    name: str = "2.weight"
    ranks: tuple[int, ...] = (1,)
    after: int = 4
    bf16: bool = False


SETTINGS = (
    Setting("topk:density=10%,exchange=gather", None, damage="none"),
    Setting("topk:density=10%,exchange=gather", damage="none"),
    Setting("qsgd", "stop"),
    Setting("qsgd", ranks=(1, 2)),
    Setting("qsgd", ranks=(0,), name="0.bias"),
    Setting("sgd", optimizer="adamw", damage="optimizer", ranks=(2,)),
    Setting("qsparse:every=4,density=20%", "stop", ranks=(2,)),
    Setting("qsparse:every=4,density=20%", ranks=(2,)),
    Setting("diloco:every=4", damage="velocity", ranks=(1,), after=5),
    Setting("streaming-diloco:every=2,fragments=3,delay=1", ranks=(1,)),
    Setting("easgd:every=2", ranks=(1,)),
    Setting("local-sgd:every=4", "stop", damage="model", ranks=(1,), after=5),
    Setting("qsparse:every=4,density=20%", ranks=(1,), bf16=True),
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))


def flip(tensor: Tensor) -> None:
    """The lowest bit of the first entry, in a way that torch does not notice, as faulty memory does."""
    view = tensor.data.view(-1)
    whole = view[:1].clone().view(torch.int16 if tensor.element_size() == 2 else torch.int32) ^ 1
    view[:1] = whole.view(tensor.dtype)


def damage(setting: Setting, worker: Worker) -> None:
    match setting.damage:
        case "parameter":
            for channel in worker.channels:
                state = {**channel.update}
                for index, name in enumerate(channel.layout.names):
                    if name == setting.name:
                        target = channel.params[index]
                        if "reference" in state:
                            target = channel.layout.views(state["reference"])[index]
                        flip(target)
                        return
            raise AssertionError("nothing was damaged")
        case "model":
            flip(worker.model.get_parameter(setting.name))
        case "optimizer":
            worker.optimizer.state[worker.model.get_parameter(setting.name)]["exp_avg"].mul_(1.5)
        case "velocity":
            worker.channels[0].update["velocity"] += 1.0


def train(setting: Setting, transport: Transport) -> dict[str, Any]:
    """The state at each step, what was warned of and what was raised."""
    model = network().to(torch.bfloat16 if setting.bf16 else torch.float32)
    kind = torch.optim.AdamW if setting.optimizer == "adamw" else torch.optim.SGD
    optimizer = kind(model.parameters(), lr=0.02)
    worker = Worker(parse_method(setting.method), model, optimizer, rank=transport.rank, size=transport.size, seed=5)
    guarded: GuardedReplicas | None = None
    if setting.on_difference is not None:
        guard = ReplicaGuard(every=EVERY, on_difference=setting.on_difference)  # type: ignore[arg-type]
        guarded = guard_worker(guard, transport, worker)
    before = transport.traffic
    warned: dict[int, str] = {}
    states = []
    local: tuple[Tensor, Tensor] | None = None
    raised = None
    for step in range(1, STEPS + 1):
        generator = torch.Generator().manual_seed(1000 * step + transport.rank)
        x = torch.randn(8, 6, generator=generator, dtype=next(model.parameters()).dtype)
        optimizer.zero_grad()
        (model(x) - x[:, :3].sin()).float().square().mean().backward()
        transport.run(worker.step())
        own = {name: param.detach().clone() for name, param in model.named_parameters()}
        if guarded is not None:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    guarded.after_step(step)
                except DivergenceError as error:
                    raised = (step, str(error))
                    break
            if caught:
                warned[step] = str(caught[0].message)
                local = (own[setting.name], model.get_parameter(setting.name).detach().clone())
        states.append({name: tensor.clone() for name, tensor in worker.shared_parameters().items()})
        if step == setting.after and transport.rank in setting.ranks:
            damage(setting, worker)
    traffic = [
        transport.traffic.bytes_sent - before.bytes_sent,
        transport.traffic.bytes_received - before.bytes_received,
    ]
    return {
        "states": states,
        "warned": warned,
        "raised": raised,
        "traffic": traffic,
        "local": local,
        "num_resyncs": 0 if guarded is None else guarded.num_resyncs,
        "model": own,
    }


class Odd(nn.Module):
    """Parameters of every kind: transposed, of 16 bits, of no dimension, empty, NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = nn.Parameter(torch.arange(12.0).view(3, 4).T)
        self.of_16_bits = nn.Parameter(torch.arange(5.0).to(torch.bfloat16))
        self.scalar = nn.Parameter(torch.tensor(2.0))
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.not_a_number = nn.Parameter(torch.tensor([float("nan"), -0.0]))


def odd(transport: Transport) -> list[Any]:
    """What the guard says of each kind of parameter, one bit of which is another on process 2; and the bits after."""
    found: list[Any] = []
    for name in (None, "turned", "of_16_bits", "scalar", "not_a_number"):
        module = Odd()
        if name is not None and transport.rank == 2:
            flip(module.get_parameter(name).T if name == "turned" else module.get_parameter(name))
        guarded = guard_module(ReplicaGuard(every=1, on_difference="resync"), transport, module)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            guarded.after_step(1)
            first = [str(warning.message) for warning in caught]
            guarded.after_step(2)
        bits = [param.detach().reshape(-1).contiguous().view(torch.uint8).tolist() for param in module.parameters()]
        found.append((name, first, len(caught), bits))
    return found


def strangers(transport: Transport) -> list[str]:
    """What is raised where the processes' models are not one."""
    models = {
        "count": nn.Linear(2, 2, bias=transport.rank != 1),
        "shape": nn.Linear(2, 3) if transport.rank == 1 else nn.Linear(3, 2),
        "state": network(),
    }
    found = []
    for kind, model in models.items():
        for param in model.parameters():
            nn.init.zeros_(param)
        guard = ReplicaGuard(every=1, on_difference="resync")
        guarded = guard_module(guard, transport, model)
        if kind == "state":
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9 * (transport.rank == 1))
            worker = Worker(
                parse_method("sgd"), model, optimizer, rank=transport.rank, size=transport.size, seed=0
            )  # fmt: skip
            for param in model.parameters():
                param.grad = torch.ones_like(param)
            transport.run(worker.step())
            if transport.rank == 1:
                flip(model.get_parameter("0.weight"))
            guarded = guard_worker(guard, transport, worker)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                guarded.after_step(1)
                found.append("nothing")
            except DivergenceError as error:
                found.append(str(error))
    return found


PAUSES = {"gather": [11.0, 13.0, 17.0, 29.0], "all-reduce": [2.0, 31.0, 37.0, 3.0, 17.0, 29.0], "server": []}
"""Seconds until each message of a step is there: of the two peers in a gather, of theirs to sum and their sums in an
all-reduce; then what is shared outside of the program."""


class FakeTime:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def passing(self, seconds: Callable[[], float], function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, which takes some seconds."""

        def slow(*args: Any, **options: Any) -> Any:
            self.seconds += seconds()
            return function(*args, **options)

        return slow


@dataclass(frozen=True)
class SlowTopK:
    """Takes 3 seconds a vector."""

    time: FakeTime

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        self.time.seconds += 3.0
        return TopK(k=4).compress(x, key, segments)

    def outline(self, segments: Segments) -> Payload:
        return TopK(k=4).outline(segments)

    def traits(self, numel: int) -> Traits:
        return TopK(k=4).traits(numel)


def next_pause(pauses: list[float]) -> float:
    return pauses.pop(0) if pauses else 1.0


def clocked(transport: Transport) -> dict[str, Any]:
    """The times of steps whose parts take known seconds, by each kind of exchange; and all that passed."""
    time = FakeTime()
    saved = Links.receive, vars(gather)["encode"], vars(gather)["unite_means"]
    methods: dict[str, Method] = {
        "gather": GradientAveraging(compressor=SlowTopK(time), memory=ErrorFeedback(), exchange=gather.Gather()),
        "all-reduce": parse_method("sgd"),
        "server": parse_method("topk:k=4,exchange=server"),
    }
    found = {}
    for kind, method in methods.items():
        pauses: list[float] = []
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        worker = Worker(method, model, optimizer, rank=transport.rank, size=transport.size, seed=5)
        worker.agreement.has_begun = True  # what is timed are exchanges
        optimizer.step = time.passing(lambda: 19.0, optimizer.step)  # type: ignore[method-assign]
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        clock = StepClock(time.now, kept=3)
        start = time.seconds
        transport.clock = worker.channels[0].clock = clock
        setattr(Links, "receive", time.passing(functools.partial(next_pause, pauses), saved[0]))  # noqa: B010
        vars(gather)["encode"] = time.passing(lambda: 5.0, saved[1])
        vars(gather)["unite_means"] = time.passing(lambda: 7.0, saved[2])
        for step in range(3):
            time.seconds += 23.0 + step
            pauses[:] = PAUSES[kind]
            for param in model.parameters():
                param.grad = torch.ones_like(param)
            transport.run(worker.step())
            transport.share([1.0])
            clock.end_step()
        transport.clock = None
        setattr(Links, "receive", saved[0])  # noqa: B010
        vars(gather)["encode"], vars(gather)["unite_means"] = saved[1:]
        steps = [dataclasses.asdict(times) for times in clock.steps()]
        found[kind] = {"steps": steps, "median": clock.median(), "passed": time.seconds - start}
    return found


def shells(folder: str, transport: Transport) -> dict[str, Any]:
    """Both shells with a guard, a report and a clock: what was raised or warned of, the records, the last times."""
    found: dict[str, Any] = {}
    for shell in ("optimizer", "hook"):
        for on_difference in ("stop", "resync"):
            path = Path(folder, f"{shell}-{on_difference}-{transport.rank}.jsonl")
            options: dict[str, Any] = {
                "guard": ReplicaGuard(every=2, on_difference=on_difference),
                "layer_report": LayerReport(sink=JsonLines(path), every=1, ranks=(0, 1)),
                "profile": True,
            }
            model = network()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
            run: nn.Module = model
            state: Synchronizer | CompressedGradients
            if shell == "hook":
                run = DistributedDataParallel(model, bucket_cap_mb=0.0002)
                policy = DensePolicy(below=0)
                state = compress_ddp(run, "signtopk:density=20%", policy=policy, warn_if_slower=False, **options)
            else:
                state = synchronize(optimizer, model, "signtopk:density=20%,every=2", **options)
            said: list[tuple[int, str, str]] = []
            for step in range(1, 7):
                generator = torch.Generator().manual_seed(1000 * step + transport.rank)
                x = torch.randn(8, 6, generator=generator)
                optimizer.zero_grad()
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    try:
                        (run(x) - x[:, :3].sin()).square().mean().backward()
                        optimizer.step()
                    except RuntimeError as error:
                        said.append((step, type(error).__name__, str(error)))
                        break
                    said += [(step, "warning", str(warning.message)) for warning in caught]
                if step == 3 and transport.rank == 1:
                    shared = state.shared_parameters() if isinstance(state, Synchronizer) else {}
                    flip(shared.get("2.weight", model.get_parameter("2.weight")))
            times, message_bytes = state.times, state.message_bytes
            state.close()
            records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
            bits = {name: param.detach().clone() for name, param in model.named_parameters()}
            kept = {"said": said, "records": records, "times": times, "bits": bits, "message_bytes": message_bytes}
            found[f"{shell}-{on_difference}"] = kept
    return found


def run_all(folder: str, transport: Transport) -> None:
    torch.set_num_threads(1)
    found = {
        "trained": [train(setting, transport) for setting in SETTINGS],
        "odd": odd(transport),
        "strangers": strangers(transport),
        "clocked": clocked(transport),
        "shells": shells(folder, transport),
    }
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))
