"""The clocks of simulated workers and their links: when a message arrives, and what has crossed each link."""

from typing import Any

from thinwire.network import FRAME_NUM_BYTES, Network, Traffic


class VirtualLinks:
    """A clock and a full-duplex link for each worker; a message occupies one uplink, then one downlink.

    Args:
        network: bandwidth and latency of every link.
        num_workers: how many there are.
    """

    def __init__(self, network: Network, num_workers: int) -> None:
        self.network = network
        self.clocks = [0.0] * num_workers
        self.traffic = [Traffic()] * num_workers
        self._links = [network.link(rank) for rank in range(num_workers)]
        self._uplink_free = [0.0] * num_workers
        self._downlink_free = [0.0] * num_workers

    def all_free_s(self) -> float:
        """When all workers have come and no message is on its way on a link any more."""
        return max(*self.clocks, *self._uplink_free, *self._downlink_free)

    def leave(self, source: int, destination: int, num_bytes: int) -> float:
        """Account for a message that is sent now, and return when its first bit is at the receiver's port."""
        size = num_bytes + FRAME_NUM_BYTES
        sender, receiver = self._links[source], self._links[destination]
        start = max(self.clocks[source], self._uplink_free[source])
        self._uplink_free[source] = start + size / sender.up_Bps
        self.traffic[source] += Traffic(bytes_sent=size)
        self.traffic[destination] += Traffic(bytes_received=size)
        return start + (sender.latency_s + receiver.latency_s) / 2

    def enter(self, source: int, destination: int, num_bytes: int, first_bit: float) -> float:
        """Let a message through the receiver's port, after those that came before it; when it has arrived."""
        size = num_bytes + FRAME_NUM_BYTES
        begin = max(first_bit, self._downlink_free[destination])
        end = begin + size / self._links[destination].bandwidth_Bps
        self._downlink_free[destination] = end
        # It cannot be there before it has left; a sender that is slow does not hold up the others meanwhile.
        return max(end, first_bit + size / self._links[source].up_Bps)

    def state_dict(self) -> dict[str, Any]:
        """Clocks and counts as plain numbers."""
        return {
            "clocks": list(self.clocks),
            "traffic": [[link.bytes_sent, link.bytes_received] for link in self.traffic],
            "uplink_free": list(self._uplink_free),
            "downlink_free": list(self._downlink_free),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.clocks = list(saved["clocks"])
        self.traffic = [Traffic(sent, received) for sent, received in saved["traffic"]]
        self._uplink_free = list(saved["uplink_free"])
        self._downlink_free = list(saved["downlink_free"])
