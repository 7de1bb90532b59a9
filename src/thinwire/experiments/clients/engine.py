"""The clocks and links of many clients, of whom few exchange at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from thinwire.experiments.engines import Engine, SimulatedEngine
from thinwire.experiments.spec import Comparison
from thinwire.methods import Method
from thinwire.network import FRAME_NUM_BYTES, Network, Traffic
from thinwire.simulator import Simulation
from thinwire.steps import Steps
from thinwire.worker import needs_server

T = TypeVar("T")


class ClientEngine:
    """Simulates those who take part in a round, each with its own clock, link and count of bytes.

    Whoever comes anew is handed the common model when the round before is over. It comes from where all of it is
    known, whose own link is no bottleneck: only the way down of each client that gets it is charged.

    Args:
        num_clients: how many there are.
        per_round: how many take part, on average.
        network: the link of every client, by its number.
    """

    def __init__(self, num_clients: int, per_round: int, network: Network) -> None:
        self._network = network
        self._links: dict[str, list[Any]] = Simulation(num_clients, network).state_dict()
        self._simulation: Simulation | None = None
        self.seated: list[int] = []
        """Who take part now."""
        self.size = per_round
        self.serves = False
        self.local_ranks = range(per_round)

    def seat(self, clients: Sequence[int], handed: Mapping[int, int]) -> None:
        """From now on these take part.

        Args:
            clients: ascending.
            handed: bytes of the common model that some of them get first.
        """
        self._keep()
        now = max((self._links["clocks"][client] for client in self.seated), default=0.0)
        for client, num_bytes in handed.items():
            link, size = self._network.link(client), num_bytes + FRAME_NUM_BYTES
            arrival = max(now, self._links["clocks"][client]) + link.latency_s + size / link.bandwidth_Bps
            self._links["clocks"][client] = self._links["downlink_free"][client] = arrival
            sent, received = self._links["traffic"][client]
            self._links["traffic"][client] = [sent, received + size]
        self._take(clients)

    def run(self, programs: Sequence[Steps[T]]) -> list[T]:
        """One program for each of those who take part."""
        assert self._simulation is not None
        return self._simulation.run(programs)

    def seconds(self) -> float:
        """The latest client's clock."""
        self._keep()
        return float(max(self._links["clocks"]))

    def traffic(self) -> list[Traffic]:
        """Bytes on the link of each client, also of those who do not take part now."""
        self._keep()
        return [Traffic(sent, received) for sent, received in self._links["traffic"]]

    def share(self, values: Sequence[float]) -> list[list[float]]:
        """There is only this process."""
        return [list(values)]

    def state_dict(self) -> dict[str, Any]:
        """Clocks and counts, and who takes part."""
        self._keep()
        return {"links": {name: list(values) for name, values in self._links.items()}, "seated": list(self.seated)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._links = {name: list(values) for name, values in saved["links"].items()}
        self._take(saved["seated"])

    def _take(self, clients: Sequence[int]) -> None:
        self.seated = list(clients)
        places = {client: place for place, client in enumerate(clients)}
        own = tuple((places[client], link) for client, link in self._network.links if client in places)
        self._simulation = Simulation(len(clients), replace(self._network, links=own)) if clients else None
        if self._simulation is not None:
            self._simulation.load_state_dict(
                {name: [values[client] for client in clients] for name, values in self._links.items()}
            )

    def _keep(self) -> None:
        """Write back where those are who take part."""
        if self._simulation is not None:
            for name, values in self._simulation.state_dict().items():
                for client, value in zip(self.seated, values, strict=True):
                    self._links[name][client] = value


def simulating_engine(comparison: Comparison, method: Method) -> Engine:
    """What simulates a run of a comparison."""
    if comparison.clients is not None:
        return ClientEngine(comparison.clients.count, comparison.workers, comparison.network)
    return SimulatedEngine(comparison.workers, comparison.network, needs_server(method))
