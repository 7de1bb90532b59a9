"""What a request costs: bytes on each worker's link, and seconds on a given network.

Both drivers count with these functions. Collectives are exchanged directly between all pairs, as the real
transport does: an all-reduce is a reduce-scatter in which each worker sums one shard in rank order, and an
all-gather of the shards that begins with the first piece that is summed; it moves the same ``2 (P-1)/P`` of the vector
as a ring.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinwire.config import check_types
from thinwire.errors import ConfigError
from thinwire.option_strings import read_pairs, read_seconds

FRAME_NUM_BYTES = 8
"""Every message of unknown length is preceded by its length as an int64; it is counted with the message."""

PIECE_NUM_BYTES = 1 << 20
"""An all-reduce sums and passes on pieces of so many bytes: while one is summed the next is on its way."""

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
class Link:
    """A worker's full-duplex connection to all others.

    Args:
        bandwidth_Bps: bytes a second that it receives; and sends, unless ``uplink_Bps`` is given.
        latency_s: seconds from any other worker with the same latency; between two links it is the mean of both.
        uplink_Bps: bytes a second that it sends.

    Raises:
        ConfigError: a bandwidth that is not above 0 or a negative latency.
    """

    bandwidth_Bps: float = 1e9
    latency_s: float = 1e-4
    uplink_Bps: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        up = self.bandwidth_Bps if self.uplink_Bps is None else self.uplink_Bps
        if not (self.bandwidth_Bps > 0 and up > 0) or not self.latency_s >= 0:
            raise ConfigError(
                f"a network with bandwidth {self.bandwidth_Bps} B/s, {up} B/s up, and latency {self.latency_s} s was "
                "given; bandwidth must be above 0 and latency at least 0"
            )

    @property
    def up_Bps(self) -> float:
        """Bytes a second that it sends."""
        return self.bandwidth_Bps if self.uplink_Bps is None else self.uplink_Bps


@dataclass(frozen=True, slots=True)
class Network:
    """Every worker's link: ``bandwidth_Bps`` bytes a second each way, ``latency_s`` to any other; or one of its own.

    Args:
        bandwidth_Bps: bytes a second that a worker receives; and sends, unless ``uplink_Bps`` is given.
        latency_s: seconds until a message's first bit arrives.
        uplink_Bps: bytes a second that a worker sends.
        links: workers (an asynchronous server has the number after the last) whose link is another.

    Example:
        >>> Network.parse("100Mbit,20ms")
        Network(bandwidth_Bps=12500000.0, latency_s=0.02, uplink_Bps=None, links=())
        >>> Network.parse("100Mbit,500ms").transfer_s(12_500_000)
        1.5
        >>> Network.parse("100Mbit,20ms,up=10Mbit; 3: 8Mbit,1s").link(3)
        Link(bandwidth_Bps=1000000.0, latency_s=1.0, uplink_Bps=None)
    """

    bandwidth_Bps: float = 1e9
    latency_s: float = 1e-4
    uplink_Bps: float | None = None
    links: tuple[tuple[int, Link], ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        _ = self.default  # refuses what cannot be
        ranks = [rank for rank, _ in self.links]
        if len(set(ranks)) < len(ranks) or any(rank < 0 for rank in ranks):
            raise ConfigError(f"links of workers {ranks} were given; each worker has one, and workers count from 0")

    @property
    def default(self) -> Link:
        """The link of every worker that has none of its own."""
        return Link(self.bandwidth_Bps, self.latency_s, self.uplink_Bps)

    def link(self, rank: int) -> Link:
        """The link of worker ``rank``."""
        return next((link for own, link in self.links if own == rank), self.default)

    @staticmethod
    def parse(text: str) -> "Network":
        """A network from ``BANDWIDTH,LATENCY``, such as ``100Mbit,20ms`` or ``1Gbit,0.1ms`` (bit: 1/8 byte).

        ``,up=BANDWIDTH`` gives the way up, and ``; RANK: BANDWIDTH,LATENCY`` one worker's own link, any number of
        times.
        """
        if not isinstance(text, str):
            raise ConfigError(f"Network.parse reads text such as '100Mbit,20ms'; a {type(text).__name__} was given")
        first, *others = text.split(";")
        default = _parse_link(first, text)
        links = []
        for other in others:
            rank, colon, rest = other.partition(":")
            if not colon or not rank.strip().isdecimal():
                raise _unreadable(text)
            links.append((int(rank), _parse_link(rest, text)))
        return Network(default.bandwidth_Bps, default.latency_s, default.uplink_Bps, tuple(links))

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Network":
        """The network whose fields ``dataclasses.asdict`` gave."""
        links = tuple((rank, Link(**link)) for rank, link in data["links"])
        return Network(**{**data, "links": links})

    def transfer_s(self, num_bytes: int) -> float:
        """Seconds until a message has arrived on an idle link: latency plus bytes over bandwidth."""
        return self.latency_s + num_bytes / self.bandwidth_Bps

    def round_s(self, traffic: Sequence["Traffic"]) -> float:
        """Seconds for a round in which every worker sends and receives at once: as long as its busiest link.

        Args:
            traffic: of every worker, in rank order.
        """
        if not self.links:
            most_up = max(each.bytes_sent for each in traffic)
            most_down = max(each.bytes_received for each in traffic)
            return self.latency_s + max(most_up / self.default.up_Bps, most_down / self.bandwidth_Bps)
        links = [self.link(rank) for rank in range(len(traffic))]
        busiest = max(
            max(each.bytes_sent / link.up_Bps, each.bytes_received / link.bandwidth_Bps)
            for link, each in zip(links, traffic, strict=True)
        )
        first, second = sorted((link.latency_s for link in links), reverse=True)[:2]
        return (first + second) / 2 + busiest


def _parse_link(text: str, whole: str) -> Link:
    bandwidth, _, rest = text.partition(",")
    latency, _, options = rest.partition(",")
    try:
        up = read_pairs(options, "a link", ("up",)).get("up")
        speeds = [_read_bandwidth(each) for each in (bandwidth, up) if each is not None]
        latency_s = read_seconds(latency)
    except ValueError:
        raise _unreadable(whole) from None
    if not 0 <= latency_s < math.inf:
        raise _unreadable(whole)
    return Link(speeds[0], latency_s, *speeds[1:])


def _read_bandwidth(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)\s*([kMG]?)(bit|bps|B)(?:/s)?", text.strip())
    if match is None:
        raise ValueError(text)
    return float(match[1]) * _UNITS[match[2]] / (1 if match[3] == "B" else 8)


def _unreadable(text: str) -> ConfigError:
    return ConfigError(
        f"cannot read the network {text!r}; give BANDWIDTH,LATENCY such as 100Mbit,20ms "
        "(bandwidth in kbit, Mbit, Gbit or B, kB, MB, GB a second; latency in us, ms or s), then, if wanted, "
        ",up=10Mbit for the way up, and ; 3: 10Mbit,100ms for worker 3's own link"
    )


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
    """Seconds for an all-reduce: two rounds, each as long as its busiest link, the second as soon as it can begin.

    The last piece of a shard has come when the first round is over; its sum then goes out, after the sums of all pieces
    before it.

    Example:
        >>> network = Network.parse("100Mbit,100ms")
        >>> round(all_reduce_s(network, 25_000, 2), 3)       # one piece: two latencies, twice 50 kB
        0.208
        >>> round(all_reduce_s(network, 1_250_000, 2), 3)       # 2.5 MB each way: the second latency is hidden
        0.5
    """
    if size == 1:
        return 0.0
    bounds = shard_bounds(numel, size)
    owned = [bounds[rank + 1] - bounds[rank] for rank in range(size)]
    scatter = [Traffic(itemsize * (numel - own), itemsize * own * (size - 1)) for own in owned]
    gather = [Traffic(each.bytes_received, each.bytes_sent) for each in scatter]
    latency_s = network.round_s([Traffic()] * size)
    scatter_s, gather_s = network.round_s(scatter) - latency_s, network.round_s(gather) - latency_s
    last_s = gather_s * min(1.0, PIECE_NUM_BYTES / max(1, itemsize * max(owned)))
    return latency_s + max(latency_s + scatter_s, scatter_s + gather_s - last_s) + last_s


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
    return network.round_s(all_gather_traffic(message_bytes))
