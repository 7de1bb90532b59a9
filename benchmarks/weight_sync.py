"""What exact updates of weights take during a fine-tune in 16 bits, beside the usual ways to send them.

A byte-level transformer is trained for a while on the standard library's source text, and then fine-tuned at small
rates by AdamW, as reinforcement learning does it. After every step the weights in bf16 are published to a follower,
which must have their bits. Either the parameters themselves are bf16, or the optimizer's are f32 and bf16 copies are
published. Compared are XOR with the last weights, compressed by zstd at levels 3 and 19, and an int32 index with the
value for each changed entry.

    pip install zstandard
    python benchmarks/weight_sync.py                      # the table of docs/weight-sync.md
    python benchmarks/weight_sync.py --rates 1e-6 --steps 20 --pretrain 50
"""

import argparse
import copy
import json
import time
from dataclasses import asdict, dataclass, field

import torch
import zstandard
from torch import Tensor, nn

import thinwire
from thinwire.experiments.tasks.language_model import LanguageModelTask
from thinwire.experiments.tasks.stdlib_lm import stdlib_lm
from thinwire.experiments.tasks.transformer import Transformer
from thinwire.weights import MemoryStore

CONTEXT = 64
LIMIT = 0.8
"""Most of the bytes of the other ways that ours may take."""
HIGHEST_EVERY = 10
"""Steps from one to the next in which zstd's highest level is tried."""


@dataclass
class Row:
    """Sums over the steps of one fine-tune."""

    kind: str
    rate: float
    numel: int
    steps: int = 0
    changed: int = 0
    ours: int = 0
    zstd: dict[int, int] = field(default_factory=lambda: {3: 0, 19: 0})
    ours_beside: dict[int, int] = field(default_factory=lambda: {3: 0, 19: 0})
    """Ours in the steps in which that level was tried: the highest takes a second a million entries."""
    steps_beside: dict[int, int] = field(default_factory=lambda: {3: 0, 19: 0})
    publish_s: float = 0.0
    follow_s: float = 0.0
    zstd_s: dict[int, float] = field(default_factory=lambda: {3: 0.0, 19: 0.0})

    @property
    def listed(self) -> int:
        """Bytes of an index and a value for each changed entry."""
        return 6 * self.changed

    def ratios(self) -> list[float]:
        """Of ours to each other way."""
        return [*(self.ours_beside[level] / self.zstd[level] for level in self.zstd), self.ours / self.listed]

    def text(self) -> str:
        """A row of the table."""
        millions = self.numel / 1e6
        zstd = [self.zstd[level] / self.steps_beside[level] for level in self.zstd]
        per_step = [each / 1e3 for each in (self.ours / self.steps, *zstd, self.listed / self.steps)]
        seconds = [each / self.steps for each in (self.publish_s, self.follow_s)]
        seconds += [self.zstd_s[level] / self.steps_beside[level] for level in self.zstd]
        return (
            f"| {self.kind} | {self.rate:g} | {100 * self.changed / self.steps / self.numel:.2f} % | "
            + " | ".join(f"{each:.1f}" for each in per_step)
            + " | "
            + " | ".join(f"{100 * each:.0f} %" for each in self.ratios())
            + " | "
            + " | ".join(f"{1e3 * each / millions:.1f}" for each in seconds)
            + " |"
        )


HEAD = (
    "| parameters | rate | changed a step | kB a step | zstd-3 | zstd-19 | index + value | of zstd-3 | of zstd-19 | "
    "of index + value | publish, ms per 10^6 | follow | zstd-3 | zstd-19 |\n" + "|---" * 14 + "|"
)


def pretrained(task: LanguageModelTask, width: int, layers: int, steps: int) -> nn.Module:
    """A model that has learnt something."""
    torch.manual_seed(0)
    model = Transformer(context=CONTEXT, width=width, num_layers=layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        loss = step_of(task, model, optimizer, generator, 8)
        if step % 50 == 0:
            print(f"pre-training, step {step}: {loss:.3f} nats a byte", flush=True)
    return model


def step_of(
    task: LanguageModelTask, model: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator, batch: int
) -> float:
    """One step of the optimizer; the loss before it."""
    indices = torch.randint(task.num_train, (batch,), generator=generator)
    optimizer.zero_grad()
    # Parameters of 16 bits are computed with in 32: a CPU is slow with the others, and the steps are the same.
    wide = {name: each.float() for name, each in model.named_parameters()}
    loss = task.loss(Wide(model, wide), indices)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


class Wide(nn.Module):
    """A model with other tensors in place of its parameters."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.model = [model]  # not a part of this one
        self.parameters_instead = parameters

    def forward(self, tokens: Tensor) -> Tensor:
        scores: Tensor = torch.func.functional_call(self.model[0], self.parameters_instead, (tokens,))
        return scores


def in_bf16(model: nn.Module) -> dict[str, Tensor]:
    """What is published."""
    return {name: each.detach().to(torch.bfloat16) for name, each in model.named_parameters()}


def bits_of(weights: dict[str, Tensor]) -> Tensor:
    """All bits, as one vector of int16."""
    return torch.cat([each.contiguous().view(torch.int16).flatten() for each in weights.values()])


def fine_tune(task: LanguageModelTask, start: nn.Module, kind: str, rate: float, steps: int) -> Row:
    """Train, publish, follow and compare, step by step."""
    model = copy.deepcopy(start)
    if kind == "bf16":
        model = model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(2)
    store = MemoryStore()
    published = in_bf16(model)
    followed = {name: torch.zeros_like(each) for name, each in published.items()}
    publisher = thinwire.sync_weights(published, to=store, snapshot_every=100)
    follower = thinwire.sync_weights(followed, of=store)
    norm = published["norm.weight"]
    for gain in (norm.clone(), 2 * norm, norm.clone()):  # what is compiled is no part of the seconds
        norm.copy_(gain)
        publisher.publish()
        follower.follow()
    row = Row(kind, rate, sum(each.numel() for each in published.values()))
    last = bits_of(published)
    for _ in range(steps):
        step_of(task, model, optimizer, generator, 4)
        for name, each in in_bf16(model).items():
            published[name].copy_(each)
        began = time.perf_counter()
        report = publisher.publish()
        between = time.perf_counter()
        told = follower.follow()
        row.follow_s += time.perf_counter() - between
        # A snapshot, which is written at times for those who come later, is left out of bytes and not of seconds.
        row.publish_s += between - began
        bits = bits_of(published)
        assert torch.equal(bits_of(followed), bits), "the follower's bits are others"
        assert told.snapshot is None
        assert report.num_changed == int((bits != last).sum()) == told.num_changed
        row.steps += 1
        row.changed += report.num_changed
        row.ours += report.update_num_bytes
        difference = (bits ^ last).numpy().tobytes()
        for level in row.zstd if row.steps % HIGHEST_EVERY == 1 else [3]:
            row.steps_beside[level] += 1
            row.ours_beside[level] += report.update_num_bytes
            began = time.perf_counter()
            row.zstd[level] += len(zstandard.ZstdCompressor(level).compress(difference))
            row.zstd_s[level] += time.perf_counter() - began
        last = bits
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", default=["bf16", "f32"], choices=["bf16", "f32"])
    parser.add_argument("--rates", type=float, nargs="*", default=[1e-5, 3e-6, 1e-6])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pretrain", type=int, default=300, help="steps")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="a line of JSON for each fine-tune")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    task = stdlib_lm(context=CONTEXT)
    start = pretrained(task, args.width, args.layers, args.pretrain)
    if not args.json:
        print(f"{sum(each.numel() for each in start.parameters())} parameters, {args.steps} steps\n{HEAD}", flush=True)
    for kind in args.kinds:
        for rate in args.rates:
            row = fine_tune(task, start, kind, rate, args.steps)
            print(json.dumps(asdict(row)) if args.json else row.text(), flush=True)
            assert max(row.ratios()) <= LIMIT, "more bytes than was promised"


if __name__ == "__main__":
    main()
