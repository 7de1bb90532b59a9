"""What exchanges cost on a GPU: kernels against a copy on the device, and steps of a transformer beside other ways.

Kernels are timed by the device's events, medians, against copying as many f32 entries and against ``torch.topk``. Steps
are those of two processes on this machine's GPU, or each on its own where there are two, over gloo: plain DDP, its bf16
hook, torch's PowerSGD hook and ``compress_ddp``. A GPU is needed; it takes less than eight minutes.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --numel 25M 124M --no-steps
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.bench.shapes import read_numel
from thinwire.compressors import QSGD, Compressor, RandK, Sign, TopK
from thinwire.distributed import Transport
from thinwire.experiments.launch import launch
from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback
from thinwire.random import Key

BUCKET = 512
REPEATS, STEPS = 15, 20
WAYS = ("ddp", "bf16", "powersgd", "signtopk:density=1%", "ef-signsgd", "qsgd:bits=4")


def device_s(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median of the seconds that the device took."""
    times = []
    for turn in range(repeats + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        if turn >= 3:  # the first ones compile
            times.append(float(begin.elapsed_time(end)) / 1e3)
    return statistics.median(times)


def kernels(numel: int) -> dict[str, float]:
    """Seconds of each operation on a vector of this length."""
    x, target = torch.randn(numel, device="cuda") ** 3, torch.empty(numel, device="cuda")
    memory, whole = ErrorFeedback(), Segments.whole(numel)
    state = memory.init(target)
    found = {"copy": device_s(lambda: target.copy_(x))}
    k = numel // 100

    def step(compressor: Compressor, segments: Segments) -> Callable[[], object]:
        return lambda: memory.compress(target.copy_(x), compressor, Key(1), segments, state)

    buckets = Segments.uniform(numel, BUCKET)
    operators: dict[str, tuple[Compressor, Segments]] = {
        "EF, top 1 %, signs": (TopK(density=0.01, values=Sign()), whole),
        "EF, top 1 %": (TopK(density=0.01), whole),
        "EF, random 1 %": (RandK(density=0.01), whole),
        "EF, signs": (Sign(), buckets),
        "EF, QSGD, 4 bits, max": (QSGD(levels=7, norm="max"), buckets),
        "EF, QSGD, 4 bits, l2": (QSGD(levels=7, norm="l2", scaled=True), buckets),
    }
    for name, (compressor, segments) in operators.items():
        found[name] = device_s(step(compressor, segments)) - found["copy"]
        payload = compressor.compress(x.clone(), Key(1), segments)
        found[f"{name}: decode and add"] = device_s(lambda payload=payload: payload.add_to(target))  # type: ignore[misc]
    found["torch.topk"] = device_s(lambda: torch.topk(x.abs(), k, sorted=False), 5)
    return found


class Transformer(nn.Module):
    """A decoder of GPT-2's size: 124 M parameters."""

    def __init__(self, vocabulary: int = 50_257, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """The mean loss of the next token."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        scores = self.layers(self.embedding(tokens), mask=mask, is_causal=True) @ self.embedding.weight.T
        return nn.functional.cross_entropy(scores[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def steps(transport: Transport) -> None:
    """Milliseconds of a training step by each way, printed by the first process."""
    torch.cuda.set_device(transport.rank % torch.cuda.device_count())
    tokens = torch.randint(
        50_257, (4, 256), device="cuda", generator=torch.Generator("cuda").manual_seed(transport.rank)
    )
    for way in WAYS:
        torch.manual_seed(0)
        model = DistributedDataParallel(Transformer().cuda())
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        handle = None
        if way == "bf16":
            model.register_comm_hook(None, default_hooks.bf16_compress_hook)
        elif way == "powersgd":
            model.register_comm_hook(
                powerSGD_hook.PowerSGDState(None, 4, start_powerSGD_iter=2), powerSGD_hook.powerSGD_hook
            )
        elif way != "ddp":
            handle = thinwire.compress_ddp(model, way, warn_if_slower=False)
        times = []
        for _ in range(STEPS):
            transport.share([])
            begin = time.perf_counter()
            optimizer.zero_grad()
            model(tokens).backward()
            optimizer.step()
            torch.cuda.synchronize()
            times.append(max(own for (own,) in transport.share([time.perf_counter() - begin])))
        if transport.rank == 0:
            print(f"step, {way:24} {1e3 * statistics.median(times[STEPS // 2 :]):8.1f} ms", flush=True)
        if handle is not None:
            handle.close()
        del model, optimizer
        torch.cuda.empty_cache()


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numel", nargs="*", default=["25M", "124M", "1000M"])
    parser.add_argument("--no-steps", action="store_true")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch finds no CUDA device; this benchmark needs one", file=sys.stderr)
        return 1
    print(torch.cuda.get_device_name())
    for text in args.numel:
        found = kernels(read_numel(text))
        for name, seconds in found.items():
            ratio, selected = seconds / found["copy"], seconds / found["torch.topk"]
            print(f"{text:>6} {name:42} {1e3 * seconds:9.3f} ms {ratio:8.2f} copies {selected:8.3f} topk", flush=True)
        torch.cuda.empty_cache()
    if not args.no_steps:
        launch(2, steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
