"""How much of the exchange the hook hides behind backward, on a real, shaped link.

For several batch sizes and methods: the seconds of a step's computation alone, of its exchanges alone (the same buckets
and gradients, with nothing else going on), and of the whole step; and of the step that would result if neither delayed
the other: each bucket is exchanged when backward has filled it and the one before is done. Compression is work for a
processor, as is gloo's own addition: with fewer cores than two a process it adds to the computation, and only the wire
is hidden. With ``--light-peer`` the second process computes with a batch of one, which leaves most of a core of a
machine of two to the compression of the first. Linux, root and iproute2 are needed.

    python benchmarks/overlap.py --bandwidth 100mbit --latency 20ms
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from common_clock import CommonClock
from delayed_links import bandwidth_or_none, parse_seconds, run_in_each
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire

WIDTH, DEPTH = 640, 12
PLAIN = "plain DDP"
METHODS = ("topk:density=10%", "topk:density=2%", "signtopk:density=1%")
BATCHES = (16, 64, 256, 1024)
ROUNDS = 7


class Bucket:
    """What a hook may ask of a bucket, kept after backward."""

    def __init__(self, bucket: Any) -> None:
        self._parameters: list[Tensor] = bucket.parameters()
        self._gradients: list[Tensor] = bucket.gradients()
        self._buffer: Tensor = bucket.buffer()
        self._is_last: bool = bucket.is_last()

    def parameters(self) -> list[Tensor]:
        return self._parameters

    def gradients(self) -> list[Tensor]:
        return self._gradients

    def buffer(self) -> Tensor:
        return self._buffer

    def is_last(self) -> bool:
        return self._is_last


class Whole(Bucket):
    """Of plain DDP's only the size is known."""

    def __init__(self, numel: int) -> None:
        self._buffer = torch.ones(numel)


def all_reduce(bucket: Bucket) -> torch.futures.Future[Tensor]:
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    future: torch.futures.Future[Tensor] = work.get_future()
    return future


def network() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers)


def measure(method: str, batch: int, own_batch: int, clock: CommonClock) -> dict[str, Any]:
    model = DistributedDataParallel(network(), bucket_cap_mb=2 * 4e-6 * WIDTH * WIDTH, gradient_as_bucket_view=True)
    kept: list[Bucket] = []
    ready: list[float] = []
    only_watches = False
    handle = None if method == PLAIN else thinwire.compress_ddp(model, method, warn_if_slower=False)
    exchange = all_reduce if handle is None else handle.exchange

    def watched(bucket: Any) -> torch.futures.Future[Tensor]:
        ready.append(time.perf_counter())
        if only_watches:
            done: torch.futures.Future[Tensor] = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done
        kept.append(Bucket(bucket))
        return exchange(kept[-1])

    if handle is not None:
        vars(handle)["exchange"] = watched
    x = torch.randn(own_batch, WIDTH)

    def compute() -> None:
        with model.no_sync():
            model(x).square().mean().backward()

    def whole() -> None:
        if handle is not None:
            kept.clear()
        model(x).square().mean().backward()

    def fill() -> None:
        nonlocal only_watches
        only_watches = True
        ready[:] = [time.perf_counter()]
        model(x).square().mean().backward()
        only_watches = False

    def exchanges() -> None:
        ends[:] = [time.perf_counter()]
        for future in [exchange(bucket) for bucket in kept]:
            future.wait()
            ends.append(time.perf_counter())

    def seconds(action: Callable[[], None]) -> float:
        model.zero_grad(set_to_none=False)
        begin_s = clock.begin()
        action()
        return clock.most(time.perf_counter() - begin_s)

    for _ in range(4):  # buckets are cut anew after the first step, and compiled code is loaded
        whole()
    if handle is None:
        kept += [Whole(int(size) // 4) for size in model._get_ddp_logging_data()["rebuilt_bucket_sizes"].split(",")]
    ends: list[float] = []
    times: dict[str, list[float]] = {"compute_s": [], "exchange_s": [], "step_s": [], "undisturbed_s": []}
    for _ in range(ROUNDS):
        times["compute_s"].append(seconds(compute))
        times["step_s"].append(seconds(whole))
        times["exchange_s"].append(seconds(exchanges))
        if handle is not None:
            seconds(fill)
            # From when a bucket is full on, what the exchange of it and of those after it takes.
            left = (full - ready[0] + ends[-1] - before for full, before in zip(ready[1:], ends, strict=False))
            times["undisturbed_s"].append(max(times["compute_s"][-1], *left))
    if handle is not None:
        handle.close()
    found = {name: statistics.median(each) for name, each in times.items() if each}
    longest = max(found["compute_s"], found["exchange_s"])
    return {"method": method, "batch": batch, "buckets": len(kept), **found, "ratio": found["step_s"] / longest}


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(args.store, 2)
    dist.init_process_group("gloo", store=store, rank=args.rank, world_size=2)
    clock = CommonClock(f"{args.store}-clock", args.rank, 2)
    for method in args.methods:
        for batch in BATCHES:
            found = measure(method, batch, 1 if args.light_peer and args.rank else batch, clock)
            if args.rank == 0:
                print(json.dumps(found), flush=True)
                of_undisturbed = (
                    f", {found['step_s'] / found['undisturbed_s']:.2f} times the undisturbed" if method != PLAIN else ""
                )
                print(
                    f"{method:22s} batch {batch:4d}: compute {1e3 * found['compute_s']:6.1f} ms, exchange "
                    f"{1e3 * found['exchange_s']:6.1f}, step {1e3 * found['step_s']:6.1f}: {found['ratio']:.2f} times "
                    f"the longer one{of_undisturbed}",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
    dist.barrier()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bandwidth", type=bandwidth_or_none, default="100mbit", help="of every link, or none")
    parser.add_argument("--latency", type=parse_seconds, default="0ms", help="one way")
    parser.add_argument(
        "--methods", nargs="+", default=METHODS, help=f"method strings, or {PLAIN!r}, which needs a fast link"
    )
    parser.add_argument("--light-peer", action="store_true", help="the second process computes next to nothing")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        train(args)
        return
    run_in_each(__file__, 2, args.bandwidth, args.latency)


if __name__ == "__main__":
    main()
