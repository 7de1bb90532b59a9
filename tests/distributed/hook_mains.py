"""What the processes of the hook's tests run; a module of its own, so that they can import it by name."""

import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import CompressedGradients, DensePolicy, Transport

STEPS, CUT = 6, 3
NOTHING_DENSE = DensePolicy(vectors=False, embeddings=False, below=0)


@dataclass(frozen=True)
class Setting:
    """One training of all processes."""

    method: str
    bucket_mb: float = 25.0
    policy: DensePolicy = NOTHING_DENSE
    accumulate: int = 1
    poisoned_step: int | None = None
    cut: bool = False
    lonely: bool = False
    bf16: bool = False
    scaled: bool = False


SETTINGS = (
    Setting("sgd"),
    Setting("sgd", bucket_mb=0.0005),
    Setting("topk:density=5%"),
    Setting("topk:density=5%", bucket_mb=0.0005),
    Setting("signtopk:density=10%", bucket_mb=0.001, accumulate=2),
    Setting("ef-signsgd:exchange=server", bucket_mb=0.001),
    Setting("topk:density=5%", bucket_mb=0.001, poisoned_step=2),
    Setting("topk:density=5%", bucket_mb=0.001, cut=True),
    Setting("topk:density=5%", bucket_mb=0.001, policy=DensePolicy(patterns=("2.*",), below=0)),
    Setting("topk:density=5%", lonely=True),
    Setting("topk:density=5%", bf16=True),
    Setting("topk:density=5%", bucket_mb=0.001, scaled=True),
    Setting("dgc:density=5%,warmup=1", bucket_mb=0.001),
    Setting("powersgd:rank=1", bucket_mb=0.001),
    Setting("powersgd:rank=1", bucket_mb=0.001, cut=True),
    Setting("qsgd:bits=4", bucket_mb=0.001),
    Setting("qsgd:bits=4", bucket_mb=0.001, cut=True),
    Setting("1bit-sgd", bucket_mb=0.001),
    Setting("signtopk:density=10%,residual_dtype=bf16", bucket_mb=0.001),
    Setting("signtopk:density=10%,residual_dtype=bf16", bucket_mb=0.001, cut=True),
    Setting("dgc:density=5%,residual_dtype=bf16", bucket_mb=0.001),
    Setting("dgc:density=5%,residual_dtype=bf16", bucket_mb=0.001, cut=True),
    Setting("1bit-sgd", bucket_mb=0.001, cut=True),
)


class Scaler:
    """A loss scale that is another power of two at every step."""

    scale = 1.0
    num_asked = 0

    def get_scale(self) -> float:
        self.num_asked += 1
        return self.scale

    def check_asked(self, count: int) -> None:
        """Once a step, not once a bucket: a scaler on a device waits for it."""
        assert self.num_asked == count
        self.num_asked = 0


def network(lonely: bool = False) -> nn.Sequential:
    """Twelve tensors; with ``lonely``, one is frozen and two are never used."""
    torch.manual_seed(0)
    sizes = (6, 20, 20, 20, 20, 20)
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(20, 3))
    if lonely:
        model[2].weight.requires_grad_(False)
        model.spare = nn.Linear(3, 3)
    return model


class Walk(nn.Module):
    """Runs the layers of a sequence by number and leaves the others alone."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        for number in range(11):
            x = self.model[number](x)
        return x


def loss_of(model: Callable[[Tensor], Tensor], step: int, rank: int, part: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + 10 * rank + part)
    x = torch.randn(8, 6, generator=generator)
    return (model(x.to(dtype)).float() - x[:, :3].sin()).square().mean()


def train_all(folder: str, transport: Transport) -> None:
    found = [train(setting, transport.rank) for setting in SETTINGS]
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))


def train(setting: Setting, rank: int) -> dict[str, Any]:
    scaler = Scaler()
    model, optimizer, wrapped, hook = make(setting, scaler)
    memories = []
    for step in range(STEPS):
        if setting.cut and step == CUT:
            file = io.BytesIO()
            parts = {"model": model.state_dict(), "hook": hook.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(parts, file)
            hook.close()
            saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            model, optimizer, wrapped, hook = make(setting, scaler)
            model.load_state_dict(saved["model"])
            hook.load_state_dict(saved["hook"])
            optimizer.load_state_dict(saved["optimizer"])
        optimizer.zero_grad()
        dtype = torch.bfloat16 if setting.bf16 else torch.float32
        for part in range(setting.accumulate - 1):
            with wrapped.no_sync():
                loss_of(wrapped, step, rank, part, dtype).backward()
        loss = loss_of(wrapped, step, rank, setting.accumulate - 1, dtype)
        if step == setting.poisoned_step and rank == 1:
            loss = loss * float("inf")
        if setting.scaled:
            scaler.scale = 2.0 ** (step + 3)
        (loss * scaler.scale).backward()
        if setting.scaled:
            scaler.check_asked(1)
        for param in model.parameters():
            if setting.scaled and param.grad is not None:
                param.grad /= scaler.scale  # as GradScaler.unscale_ does
        finite = all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
        if finite:
            optimizer.step()
        memories.append({"finite": finite, "num_steps": hook.num_steps, "tensors": hook.state_dict()["tensors"]})
    counts = [hook.message_bytes, hook.traffic.bytes_sent, hook.traffic.bytes_received]
    hook.close()
    return {
        "model": {n: p.detach().clone() for n, p in model.named_parameters()},
        "memories": memories,
        "counts": counts,
    }


def make(
    setting: Setting, scaler: Scaler
) -> tuple[nn.Module, torch.optim.Optimizer, DistributedDataParallel, CompressedGradients]:
    model = network(setting.lonely)
    if setting.bf16:
        model.to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    inner = Walk(model) if setting.lonely else model
    wrapped = DistributedDataParallel(
        inner, bucket_cap_mb=setting.bucket_mb, find_unused_parameters=setting.lonely
    )  # fmt: skip
    return (
        model,
        optimizer,
        wrapped,
        thinwire.compress_ddp(
            wrapped, setting.method, policy=setting.policy, scaler=scaler, seed=5, warn_if_slower=False
        ),
    )
