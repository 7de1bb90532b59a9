"""What rows of ``thinwire bench`` cannot go below: loops that read and write what the row must, and do nothing else.

Each figure is a multiple of copying as many f32 entries, measured beside it, medians, on one thread unless said. Where
a row works in parts that the cache holds, as the step with a scale for each tensor does, so does the loop. What the
processor must compute is not in it; ``bounds_vector.py`` has that of Hadamard and of entropy coding.

    python benchmarks/bounds_memory.py
    python benchmarks/bounds_memory.py --threads 2 --numel 1M
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from thinwire.bench.shapes import read_numel, resnet50_sizes


def loops(numel: int) -> dict[str, Callable[[], object]]:
    """By row: the loop, and what it reads and writes."""
    a, b, c, d, e = (torch.rand(numel) for _ in range(5))
    sizes = [size * numel // sum(resnet50_sizes()) for size in resnet50_sizes()]
    cuts = [torch.split(each[: sum(sizes)], sizes) for each in (a, b, c)]

    def by_tensors() -> None:
        for x, residual, out in zip(*cuts, strict=True):
            torch.dot(x, residual)
            torch.add(x, residual, out=out)

    def worker() -> None:
        torch.sub(a, b, out=d)  # parameters and reference
        d.add_(c)  # the residual
        torch.sub(d, e, out=c)  # what is not sent
        b.mul_(0.5)  # reference and parameters move
        a.copy_(b)

    return {
        "decode and add: one vector read and written": lambda: a.mul_(1.0001),
        "EF + QSGD, EF + signs: two read, one written": lambda: torch.add(a, b, out=c),
        "EF + signs by tensors: two read, two read again, one written": by_tensors,
        "worker-sync, five vectors, three of them written, in torch's passes": worker,
        "one vector read": lambda: torch.sum(a),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numel", default="25M")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    numel = read_numel(args.numel)
    source, target = torch.ones(numel), torch.zeros(numel)
    swept = torch.zeros(1 << 26, dtype=torch.uint8)

    def seconds(run: Callable[[], object], threads: int) -> float:
        torch.set_num_threads(threads)
        swept.add_(1)
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    def copy() -> Tensor:
        return target.copy_(source)

    for name, run in loops(numel).items():
        run()
        pairs = [(seconds(run, args.threads), seconds(copy, 1)) for _ in range(args.repeats)]
        ratio = statistics.median(own for own, _ in pairs) / statistics.median(copied for _, copied in pairs)
        print(f"{name:72}{ratio:6.2f} copies", flush=True)


if __name__ == "__main__":
    main()
