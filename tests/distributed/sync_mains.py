"""What the processes of the synchronizer's tests run; a module of its own, so that they can import it by name."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import Transport
from thinwire.errors import ConfigError

STEPS, CUT = 7, 4


@dataclass(frozen=True)
class Setting:
    """One training of all processes.

    ``form`` is how the script uses thinwire: ``attached``, ``wrapped`` (DistributedOptimizer), ``closure`` (the loss is
    made within the step). ``overflow`` is the step in which the gradients of process 1 are not finite, under a scaler.
    """

    method: str
    form: str = "attached"
    optimizer: str = "sgd"
    dtype: torch.dtype = torch.float32
    compiled: bool = False
    cut: bool = False
    overflow: int | None = None
    unscales: bool = False


SETTINGS = (
    Setting("topk:density=5%"),
    Setting("topk:density=5%", form="wrapped", optimizer="adamw"),
    Setting("dgc:density=5%", form="closure", optimizer="groups"),
    Setting("signtopk:density=10%,every=3", form="closure", optimizer="adamw"),
    Setting("signtopk:density=10%,every=3", compiled=True, cut=True),
    Setting("diloco:every=3", optimizer="groups", cut=True),
    Setting("signtopk:density=10%,every=3", dtype=torch.bfloat16, cut=True),
    Setting("topk:density=5%", dtype=torch.bfloat16),
    Setting("beer:density=10%", form="closure", cut=True),
    Setting("motef:density=10%", overflow=3, optimizer="adamw"),
    Setting("motef:density=10%", dtype=torch.bfloat16, cut=True),
    Setting("aji-heafield:density=5%", overflow=3),
    Setting("topk:density=5%", overflow=3),
    Setting("dgc:density=5%", overflow=3, form="wrapped", unscales=True),
    Setting("signtopk:density=10%,every=3", overflow=3, optimizer="adamw"),
    Setting("signtopk:density=10%,every=3", overflow=4, form="wrapped"),
)  # fmt: skip


def network(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 3)).to(dtype)


def optimizer_of(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    if kind == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    if kind == "groups":
        first, *others = model.parameters()
        groups: list[dict[str, Any]] = [{"params": [first], "lr": 0.3}, {"params": others}]
        return torch.optim.SGD(groups, lr=0.1, momentum=0.5)
    return torch.optim.SGD(model.parameters(), lr=0.1)


def scheduler_of(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.7)


def loss_of(model: nn.Module, step: int, rank: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + 10 * rank)
    x = torch.randn(8, 6, generator=generator)
    loss: Tensor = (model(x.to(dtype)).float() - x[:, :3].sin()).square().mean()
    return loss


def train_all(folder: str, transport: Transport) -> None:
    found = [train(setting, transport.rank) for setting in SETTINGS]
    model = network(torch.float32)
    try:
        thinwire.synchronize(optimizer_of("sgd", model), DistributedDataParallel(model), "topk")
    except ConfigError as error:
        found.append({"refused": str(error)})
    found.append(serve(transport.rank))
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))


def serve(rank: int) -> dict[str, Any]:
    """One worker and its server."""
    method = "qsparse-async:density=20%,every=1"
    model = network(torch.float32)
    refused = ""
    if rank == 1:
        server = thinwire.serve(model, method, num_steps=STEPS)
        counts = [server.num_merged]
    else:
        nn.init.zeros_(model.get_parameter("0.bias"))  # the server begins with what process 0 has
        optimizer = optimizer_of("sgd", model)
        with thinwire.synchronize(optimizer, model, method) as sync:
            for step in range(STEPS):
                optimizer.zero_grad()
                loss_of(model, step, rank, torch.float32).backward()
                optimizer.step()
            assert sync.is_paused
            try:
                thinwire.Checkpoints("nowhere", {"model": model, "thinwire": sync})
            except ConfigError as error:
                refused = str(error)
            counts = [sync.worker.num_exchanges]
    params = {name: param.detach().clone() for name, param in model.named_parameters()}
    return {"params": params, "counts": counts, "refused": refused}


class Trainee:
    """A model, its optimizer and scheduler, attached or wrapped."""

    def __init__(self, setting: Setting, rank: int) -> None:
        self.model = network(setting.dtype)
        if rank:  # it must become that of process 0
            nn.init.ones_(self.model.get_parameter("0.weight"))
        self.called = self.model
        if setting.compiled:
            compiled = torch.compile(self.model, backend="eager")
            assert isinstance(compiled, nn.Module)
            self.called = compiled
        self.optimizer = optimizer_of(setting.optimizer, self.model)
        self.scheduler = scheduler_of(self.optimizer)
        if setting.form == "wrapped":
            self.stepped: Any = thinwire.DistributedOptimizer(self.optimizer, self.model, setting.method, seed=5)
            self.sync = self.stepped.sync
        else:
            self.stepped = self.optimizer
            self.sync = thinwire.synchronize(self.optimizer, self.called, setting.method, seed=5)

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler, "sync": self.sync}

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.sync.state_dict()["worker"]["tensors"].items()}


def train(setting: Setting, rank: int) -> dict[str, Any]:
    trainee = Trainee(setting, rank)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2, enabled=setting.overflow is not None)
    history = []
    for step in range(STEPS):
        if setting.cut and step == CUT:
            file = io.BytesIO()
            torch.save({name: part.state_dict() for name, part in trainee.parts().items()}, file)
            trainee.sync.close()
            saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            trainee = Trainee(setting, rank)
            for name, part in trainee.parts().items():
                part.load_state_dict(saved[name])
        trainee.stepped.zero_grad()
        if setting.form == "closure":
            loss = trainee.stepped.step(lambda: closure(trainee, setting, step, rank))  # noqa: B023
            assert loss.ndim == 0
        else:
            loss = loss_of(trainee.called, step, rank, setting.dtype)
            if step == setting.overflow and rank == 1:
                loss = loss * float("inf")
            scaler.scale(loss).backward()
            if setting.unscales:
                scaler.unscale_(trainee.stepped)
            scaler.step(trainee.stepped)
            scaler.update()
        trainee.scheduler.step()
        history.append(
            {
                "params": {name: param.detach().clone() for name, param in trainee.model.named_parameters()},
                "tensors": trainee.tensors(),
                "counts": [trainee.sync.worker.num_steps, trainee.sync.worker.num_exchanges],
            }
        )
    counts = [trainee.sync.message_bytes, trainee.sync.bytes_sent, trainee.sync.bytes_received]
    with trainee.sync.shared_model() as model:
        shared = {name: param.detach().clone() for name, param in model.named_parameters()}
    after = {name: param.detach().clone() for name, param in trainee.model.named_parameters()}
    trainee.sync.close()
    return {"history": history, "counts": counts, "shared": shared, "after": after}


def closure(trainee: Trainee, setting: Setting, step: int, rank: int) -> Tensor:
    loss = loss_of(trainee.called, step, rank, setting.dtype)
    loss.backward()
    return loss
