"""An exchange among many workers, by part: what one of them computes, and the wire by the network's model.

Error feedback compresses the gradient; the message goes to all others and theirs come; all are decoded, added in rank
order and divided; the parameters move by the mean. *One after another* is decode and add where each message reaches
over the whole sum before the next is decoded. The same few messages stand for those of all others.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thinwire.arrays import CPU, zeros
from thinwire.compressors import QSGD, Compressor, Sign, TopK
from thinwire.exchanges.reading import MessageReader
from thinwire.kernels.flat.finite import divide_finite
from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback
from thinwire.network import Network, all_gather_s
from thinwire.random import Key
from thinwire.wire import encode

PARTS = ("compress", "encode", "wire", "decode and add", "apply", "one after another")


def cases(numel: int) -> dict[str, tuple[Compressor, Segments]]:
    """By name: what makes the messages, and of which segments."""
    whole, buckets = Segments.whole(numel), Segments.uniform(numel, 512)
    return {
        "top 1 %, signs": (TopK(density=0.01, values=Sign()), whole),
        "top 1 %": (TopK(density=0.01), whole),
        "QSGD, 4 bits": (QSGD(levels=7, norm="max"), buckets),
    }


def measure(compressor: Compressor, segments: Segments, network: Network, args: argparse.Namespace) -> dict[str, float]:
    """Medians of the seconds of each part."""
    generator = torch.Generator().manual_seed(0)
    numel = segments.numel
    gradients = [torch.randn(numel, generator=generator) ** 3 for _ in range(args.distinct)]
    messages = [encode(compressor.compress(x, Key(rank), segments)) for rank, x in enumerate(gradients)]
    messages = [messages[rank % len(messages)] for rank in range(args.workers)]
    memory, reader, params = ErrorFeedback(), MessageReader(numel), torch.zeros(numel)
    state = memory.init(params)
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}
    for turn in range(args.repeats + 1):
        x = gradients[turn % len(gradients)].clone()
        begin = time.perf_counter()
        sent, state = memory.compress(x, compressor, Key(turn), segments, state)
        compressed = time.perf_counter()
        message = encode(sent)
        encoded = time.perf_counter()
        mean, _ = reader.mean([message, *messages[1:]])
        decoded = time.perf_counter()
        params.sub_(mean, alpha=0.1)
        applied = time.perf_counter()
        del mean
        _one_after_another([message, *messages[1:]], reader)
        ended = time.perf_counter()
        lengths = [each.numel() for each in (message, *messages[1:])]
        wire = all_gather_s(network, lengths)
        taken = (compressed - begin, encoded - compressed, wire, decoded - encoded, applied - decoded, ended - applied)
        for part, each in zip(PARTS, taken, strict=True):
            if turn:  # the first compiles
                seconds[part].append(each)
    return {part: statistics.median(each) for part, each in seconds.items()}


def _one_after_another(messages: Sequence[Tensor], reader: MessageReader) -> None:
    total = zeros(reader.numel, CPU)
    for payload in reader.parts(messages):
        payload.add_to(total)
    divide_finite(total, len(messages))


def copy_s(numel: int, repeats: int = 9) -> float:
    """Seconds of copying as many f32 entries."""
    source, target = torch.ones(numel), torch.empty(numel)
    return statistics.median(_timed(lambda: target.copy_(source)) for _ in range(repeats))


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numel", type=int, default=25_557_032)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--distinct", type=int, default=4, help="messages that are made")
    parser.add_argument("--network", default="1Gbit,100us")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cases", nargs="*", help="all if not given")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network = Network.parse(args.network)
    found = {
        name: measure(*case, network, args)
        for name, case in cases(args.numel).items()
        if not args.cases or name in args.cases
    }
    print(
        f"{args.workers} workers, {args.numel:,} entries, {args.network}, {args.threads} threads, milliseconds; "
        f"copying the vector {1e3 * copy_s(args.numel):.1f}\n"
    )
    print("| | " + " | ".join(PARTS) + " |\n" + "|---" * (len(PARTS) + 1) + "|")
    for name, seconds in found.items():
        print(f"| {name} | " + " | ".join(f"{1e3 * seconds[part]:.1f}" for part in PARTS) + " |")


if __name__ == "__main__":
    main()
