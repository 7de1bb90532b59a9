"""What a request costs: bytes on each worker's link, and seconds on a given network.

Both drivers count with these functions. Collectives are exchanged directly between all pairs, as the real
transport does: an all-reduce is a reduce-scatter in which each worker sums one shard in rank order, then an
all-gather of the shards; it moves the same ``2 (P-1)/P`` of the vector as a ring.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from thinwire.errors import ConfigError

FRAME_NUM_BYTES = 8
"""Every message of unknown length is preceded by its length as an int64; it is counted with the message."""

_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that crossed one worker's own link, in each direction."""

    bytes_sent: int = 0
    bytes_received: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        """Both together."""
        return Traffic(self.bytes_sent + other.bytes_sent, self.bytes_received + other.bytes_received)


@dataclass(frozen=True, slots=True)
class Network:
    """Every worker has one full-duplex link of ``bandwidth_Bps`` bytes a second, ``latency_s`` to any other.

    Example:
        >>> Network.parse("100Mbit,20ms")
        Network(bandwidth_Bps=12500000.0, latency_s=0.02)
        >>> Network.parse("100Mbit,500ms").transfer_s(12_500_000)
        1.5
    """

    bandwidth_Bps: float = 1e9
    latency_s: float = 1e-4

    def __post_init__(self) -> None:
        if not self.bandwidth_Bps > 0 or not self.latency_s >= 0:
            raise ConfigError(
                f"a network with bandwidth {self.bandwidth_Bps} B/s and latency {self.latency_s} s was given; "
                "bandwidth must be above 0 and latency at least 0"
            )

    @staticmethod
    def parse(text: str) -> "Network":
        """A network from ``BANDWIDTH,LATENCY``, such as ``100Mbit,20ms`` or ``1Gbit,0.1ms`` (bit: 1/8 byte)."""
        match = re.fullmatch(r"\s*([\d.]+)\s*([kMG]?)(bit|bps|B)(?:/s)?\s*,\s*([\d.]+)\s*(us|ms|s)\s*", text)
        try:
            if match is None:
                raise ValueError
            bandwidth = float(match[1]) * _UNITS[match[2]] / (1 if match[3] == "B" else 8)
            latency = float(match[4]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[match[5]]
        except ValueError:
            raise ConfigError(
                f"cannot read the network {text!r}; give BANDWIDTH,LATENCY such as 100Mbit,20ms "
                "(bandwidth in kbit, Mbit, Gbit or B, kB, MB, GB a second; latency in us, ms or s)"
            ) from None
        return Network(bandwidth, latency)

    def transfer_s(self, num_bytes: int) -> float:
        """Seconds until a message has arrived on an idle link: latency plus bytes over bandwidth."""
        return self.latency_s + num_bytes / self.bandwidth_Bps


def shard_bounds(numel: int, size: int) -> list[int]:
    """Where the shards of an all-reduce begin, and the end: worker ``r`` sums entries ``[r]`` to ``[r + 1]``."""
    return [numel * rank // size for rank in range(size + 1)]


def all_reduce_traffic(numel: int, size: int, itemsize: int = 4) -> list[Traffic]:
    """Bytes on each worker's link for an all-reduce of ``numel`` entries.

    Example:
        >>> all_reduce_traffic(8, 4)[0]     # 2 (P-1)/P of 32 bytes each way
        Traffic(bytes_sent=48, bytes_received=48)
    """
    bounds = shard_bounds(numel, size)
    owned = [bounds[rank + 1] - bounds[rank] for rank in range(size)]
    moved = [itemsize * ((numel - own) + own * (size - 1)) for own in owned]
    return [Traffic(num_bytes, num_bytes) for num_bytes in moved]


def all_reduce_s(network: Network, numel: int, size: int, itemsize: int = 4) -> float:
    """Seconds for an all-reduce: two rounds, each as long as its busiest link."""
    if size == 1:
        return 0.0
    bounds = shard_bounds(numel, size)
    owned = [bounds[rank + 1] - bounds[rank] for rank in range(size)]
    busiest = max(max(numel - own, own * (size - 1)) for own in owned)
    return 2 * network.transfer_s(itemsize * busiest)


def all_gather_traffic(message_bytes: Sequence[int]) -> list[Traffic]:
    """Bytes on each worker's link when worker ``r`` sends its message of ``message_bytes[r]`` to all others.

    Example:
        >>> all_gather_traffic([2, 10, 10])[0]
        Traffic(bytes_sent=20, bytes_received=36)
    """
    framed = [num_bytes + FRAME_NUM_BYTES for num_bytes in message_bytes]
    total, others = sum(framed), len(framed) - 1
    return [Traffic(own * others, total - own) for own in framed]


def all_gather_s(network: Network, message_bytes: Sequence[int]) -> float:
    """Seconds for an all-gather: one round, as long as its busiest link."""
    if len(message_bytes) == 1:
        return 0.0
    traffic = all_gather_traffic(message_bytes)
    return network.transfer_s(max(max(link.bytes_sent, link.bytes_received) for link in traffic))
