"""Workers that do nothing but exchange vectors, for the suites of the exchanges."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thinwire.exchanges import Aggregate
from thinwire.layout import Layout
from thinwire.methods import Method
from thinwire.network import Network, Traffic
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.steps import Op, Steps
from thinwire.worker.channel import Channel


class Party:
    """``size`` workers with one channel each, in a simulation."""

    def __init__(
        self, method: Method, size: int, numel: int, seed: int = 3, shapes: Sequence[Sequence[int]] | None = None
    ) -> None:
        sizes = tuple(torch.Size(shape) for shape in shapes or [[numel]])
        layout = Layout(tuple(f"v{number}" for number in range(len(sizes))), sizes)
        self.method = method
        self.numel = numel
        self.channels = [Channel(method, layout, [torch.zeros(numel)], rank, size, Key(seed)) for rank in range(size)]
        self.simulation = Simulation(size, Network())
        self.num_exchanges = 0
        self.requests: list[list[Op]] = []
        """What each worker asked for in the last exchange, in order."""

    def exchange(self, vectors: Sequence[Tensor]) -> list[Aggregate]:
        """One exchange of the vectors, which are not written to."""
        self.requests = [[] for _ in self.channels]
        programs = [
            noted(self._program(channel, vector), requests)
            for channel, vector, requests in zip(self.channels, vectors, self.requests, strict=True)
        ]
        aggregates = self.simulation.run(programs)
        self.num_exchanges += 1
        return aggregates

    def _program(self, channel: Channel, vector: Tensor) -> Steps[Aggregate]:
        x, finite = channel.gather([vector])
        outcome = yield from channel.run(x, self.method.compressor, finite, self.num_exchanges)
        if outcome.aggregate.finite:
            channel.accept(outcome)
        return outcome.aggregate

    def kept(self) -> Tensor:
        """Everything that memories and exchanges keep for later, of all workers together: f64 ``[d]``.

        What an owner keeps of its own region only is put there.
        """
        total = torch.zeros(self.numel, dtype=torch.float64)
        for channel in self.channels:
            total += sum(state.double() for state in channel.memory.values())
            left = channel.exchange.get("left")
            if left is not None and left.numel() == self.numel:
                total += left.double()
            elif left is not None:
                start, stop = region(self.numel, channel.size, channel.rank)
                total[start:stop] += left.double()
        return total

    def bits(self) -> list[dict[str, bytes]]:
        """The state of every worker."""
        return [
            {
                name: tensor.numpy().tobytes()
                for state in (channel.memory, channel.exchange)
                for name, tensor in state.items()
            }
            for channel in self.channels
        ]

    @property
    def traffic(self) -> list[Traffic]:
        return self.simulation.traffic


def noted(program: Steps[Any], requests: list[Op]) -> Steps[Any]:
    """The program, which leaves its requests in a list."""
    reply: Any = None
    while True:
        try:
            requests.append(program.send(reply))
        except StopIteration as stop:
            return stop.value
        reply = yield requests[-1]


def region(numel: int, size: int, rank: int) -> tuple[int, int]:
    return numel * rank // size, numel * (rank + 1) // size


def vectors_of(size: int, numel: int, seed: int, heavy: bool = True) -> list[Tensor]:
    """Seeded vectors, one a worker; heavy-tailed ones have a few large entries."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(numel, generator=generator) for _ in range(size)]
    return [x * x.abs() ** 2 if heavy else x for x in drawn]
