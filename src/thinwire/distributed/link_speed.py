"""How fast the link between processes is, and what the dense exchange of DDP would take on it."""

import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from thinwire.arrays import CPU
from thinwire.distributed.meeting import dense_device
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.network import Network, Traffic
from thinwire.staging import finish

SMALLEST_BYTES, LARGEST_BYTES = 1 << 16, 1 << 24
LONG_ENOUGH_S = 0.05
"""A round that takes so much longer than a small one measures the bandwidth well."""
_LATENCY_BUDGET_S = 0.1
_ROUNDS = 5


def measure_link(
    transport: Transport, group: dist.ProcessGroup | None = None, device: torch.device = CPU,
    clock: Callable[[], float] = time.perf_counter,
) -> Network:  # fmt: skip
    """Latency and bandwidth between the processes, the same on each of them; nothing is counted as traffic.

    What is timed is torch's own all-reduce, which is what DDP sends gradients by: its arithmetic and its way through
    the kernel count as the link's. Every process must call it at the same point, while none uses ``group``. It takes
    some tens of milliseconds on a fast link, less than half a second at 10 Mbit, and about ten rounds if the latency
    is long.

    Args:
        transport: by which the processes tell each other what they measured; the slowest counts.
        group: what the transport was made of.
        device: where the model lies: what is timed is what DDP would send from there.
        clock: seconds.

    Raises:
        ConfigError: a single process.
        WorkerError: a peer is gone.
    """
    if transport.size == 1:
        raise ConfigError("a link between 1 process and itself was to be measured; start 2 or more, as with torchrun")

    whole = group or dist.group.WORLD
    assert whole is not None
    device = dense_device(whole, device)

    def round_s(num_bytes: int) -> float:
        tensor = torch.zeros(num_bytes // 4, dtype=torch.float32, device=device)
        transport.share([])  # nobody waits for one that comes late
        begin = clock()
        dist.all_reduce(tensor, group=group)
        finish(device)
        return max(own for (own,) in transport.share([clock() - begin]))

    return fit_link(round_s, transport.size)


def fit_link(round_s: Callable[[int], float], size: int) -> Network:
    """The network on which :func:`dense_exchange_s` takes what all-reduces took.

    The latency is that of the median of several small ones. Bytes are doubled from 64 kB on (or grow fourfold, while
    they are hardly noticed beside the latency) until they take 50 ms and a quarter of a small round, or are 16 MB.

    Args:
        round_s: performs an all-reduce of so many bytes and gives its seconds, the same on every process.
        size: number of processes.

    Example:
        >>> fit_link(lambda num_bytes: 2 * (0.25 + num_bytes / 2 / 2**20), size=2).bandwidth_Bps
        1048576.0
    """
    hops = 2 * (size - 1)
    least = 4 * size
    round_s(least)  # connections are made at the first
    small = [round_s(least)]
    while len(small) < _ROUNDS and sum(small) < _LATENCY_BUDGET_S:
        small.append(round_s(least))
    small_s = statistics.median(small)
    num_bytes = SMALLEST_BYTES
    while True:
        took_s = round_s(num_bytes)
        bytes_s = took_s - small_s
        if bytes_s >= max(LONG_ENOUGH_S, small_s / 4) or num_bytes >= LARGEST_BYTES:
            break
        num_bytes = min(LARGEST_BYTES, num_bytes * (2 if bytes_s >= small_s / 4 else 4))
    if took_s < 2 * LONG_ENOUGH_S:
        bytes_s = statistics.median([took_s, round_s(num_bytes), round_s(num_bytes)]) - small_s
    # On a noisy machine a small round may take longer than a large one.
    bytes_s = max(bytes_s, took_s / 1000)
    return Network(bandwidth_Bps=hops * (num_bytes - least) / size / bytes_s, latency_s=small_s / hops)


def dense_exchange_s(network: Network, num_bytes: int, size: int) -> float:
    """Seconds of a ring all-reduce: ``2 (P-1)`` rounds, each of a ``P``-th of the bytes and one latency.

    Args:
        network: the link of every process.
        num_bytes: of the gradients (4 an entry in f32).
        size: P, the number of processes.

    Example:
        >>> dense_exchange_s(Network.parse("100Mbit,1ms"), 20_000_000, 2)
        1.602
    """
    part = Traffic(-(-num_bytes // size), -(-num_bytes // size))
    return 2 * (size - 1) * network.round_s([part] * size)
