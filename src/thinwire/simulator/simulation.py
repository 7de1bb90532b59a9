"""Many workers in one process, under a virtual clock."""

import operator
from collections.abc import Sequence
from typing import Any, TypeVar

from thinwire.errors import ConfigError
from thinwire.network import Network, Traffic
from thinwire.simulator.round import Round
from thinwire.simulator.virtual_links import VirtualLinks
from thinwire.steps import Steps

T = TypeVar("T")


class Simulation:
    """Runs the programs of ``num_workers`` workers; equal programs give equal bits, bytes and times.

    Clocks and byte counts go on from one :meth:`run` to the next. A collective begins when its last worker has
    arrived and no message is under way, and ends for all at once, after the seconds of :mod:`thinwire.network`. A
    message of a pair occupies the sender's uplink, then the receiver's downlink, for its bytes over the bandwidth,
    in the order in which they come to it: a server with one port is as slow as its port.

    Args:
        num_workers: how many programs run together.
        network: bandwidth and latency of every link.

    Raises:
        ConfigError: no whole number of workers from 1 on, or something else than a network.

    Example:
        >>> from torch import Tensor
        >>> from thinwire.steps import receive, send
        >>> import torch
        >>> def ping():
        ...     yield from send(1, torch.zeros(92, dtype=torch.uint8))
        >>> def pong():
        ...     return (yield from receive(0, Tensor.numel))
        >>> simulation = Simulation(2, Network(bandwidth_Bps=1000.0, latency_s=0.5))
        >>> simulation.run([ping(), pong()]), simulation.clocks
        ([None, 92], [0.0, 0.6])
    """

    def __init__(self, num_workers: int, network: Network | None = None) -> None:
        try:
            is_possible = operator.index(num_workers) >= 1
        except TypeError:
            is_possible = False
        if not is_possible:
            raise ConfigError(f"a simulation of {num_workers!r} workers was asked for; it takes 1 or more")
        if network is not None and not isinstance(network, Network):
            raise ConfigError(
                f"{network!r} was given as the network of a simulation; it takes a Network, such as "
                "Network.parse('100Mbit,20ms')"
            )
        self.network = network or Network()
        self._links = VirtualLinks(self.network, num_workers)

    @property
    def clocks(self) -> list[float]:
        """The virtual time of each worker, in seconds."""
        return self._links.clocks

    @property
    def traffic(self) -> list[Traffic]:
        """What has crossed the link of each worker."""
        return self._links.traffic

    def run(self, programs: Sequence[Steps[T]]) -> list[T]:
        """Run one program a worker to its end and return their results.

        Raises:
            DeadlockError: every unfinished worker waits; the message names what for.
            ProtocolError: the workers do not join in the same collective, address a worker that is not there, or
                leave a message that nobody received.
        """
        if len(programs) != len(self.clocks):
            raise ConfigError(f"{len(programs)} programs were given for {len(self.clocks)} workers")
        return Round(self._links, programs).run()

    def state_dict(self) -> dict[str, Any]:
        """Clocks and counts between two runs, as plain numbers."""
        return self._links.state_dict()

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        if len(saved["clocks"]) != len(self.clocks):
            raise ConfigError(f"the saved simulation has {len(saved['clocks'])} workers, this one {len(self.clocks)}")
        self._links.load_state_dict(saved)
