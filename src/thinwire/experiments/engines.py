"""Where the workers of a run live: all in this process, or one in each of many."""

import time
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from thinwire.distributed import Transport
from thinwire.errors import NumericsError
from thinwire.network import Network, Traffic
from thinwire.simulator import Simulation
from thinwire.simulator.tracing import traced
from thinwire.steps import Op, Steps

T = TypeVar("T")


class Engine(Protocol):
    """Runs programs for the workers that live in this process and knows their clock and their traffic."""

    @property
    def size(self) -> int:
        """Number of workers of the run."""
        ...

    @property
    def local_ranks(self) -> Sequence[int]:
        """The workers that live here."""
        ...

    @property
    def serves(self) -> bool:
        """Whether the server of an asynchronous method, which takes part with rank ``size``, lives here."""
        ...

    def run(self, programs: Sequence[Steps[T]]) -> list[T]:
        """Run one program for each local worker, then that of the server if it lives here."""
        ...

    def seconds(self) -> float:
        """Seconds of training so far: virtual, or measured without evaluation and start-up."""
        ...

    def traffic(self) -> list[Traffic]:
        """Bytes on each local worker's link so far."""
        ...

    def share(self, values: Sequence[float]) -> list[list[float]]:
        """The numbers of every process, in rank order."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Clock and counts of this process."""
        ...

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        ...


class SimulatedEngine:
    """All workers here, on a virtual clock.

    Args:
        num_workers: beside the server.
        network: between them.
        serves: whether there is a server.
        traces: to which each worker's requests are appended, see :func:`thinwire.simulator.tracing.traced`.
    """

    def __init__(
        self, num_workers: int, network: Network, serves: bool = False, traces: Sequence[list[Op]] = ()
    ) -> None:
        self._simulation = Simulation(num_workers + serves, network)
        self._traces = traces
        self.size = num_workers
        self.serves = serves
        self.local_ranks = range(num_workers)

    def run(self, programs: Sequence[Steps[T]]) -> list[T]:
        """See :meth:`Engine.run`."""
        if self._traces:
            programs = [traced(program, trace) for program, trace in zip(programs, self._traces, strict=True)]
        return self._simulation.run(programs)

    def seconds(self) -> float:
        """The latest worker's clock."""
        return max(self._simulation.clocks)

    def traffic(self) -> list[Traffic]:
        """See :meth:`Engine.traffic`."""
        return list(self._simulation.traffic[: self.size])

    def share(self, values: Sequence[float]) -> list[list[float]]:
        """There is only this process."""
        return [list(values)]

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Engine.state_dict`."""
        return self._simulation.state_dict()

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """See :meth:`Engine.load_state_dict`."""
        self._simulation.load_state_dict(saved)


class ProcessEngine:
    """One worker here, or the server, the others in other processes."""

    def __init__(self, transport: Transport, served: bool = False) -> None:
        self._transport = transport
        self._before = transport.traffic
        self._seconds = 0.0
        self.size = transport.size - served
        self.serves = transport.rank == self.size
        self.local_ranks = () if self.serves else (transport.rank,)

    def run(self, programs: Sequence[Steps[T]]) -> list[T]:
        """Run the one program; the clock runs from a common start until every worker is done."""
        (program,) = programs
        self._transport.share([])
        start = time.perf_counter()
        try:
            result = self._transport.run(program)
        except NumericsError:  # every worker raises it, at the same step
            self._stop(start)
            raise
        self._stop(start)
        return [result]

    def _stop(self, start: float) -> None:
        # Each block takes as long as its slowest worker, whichever that is; the others wait here.
        self._transport.share([])
        self._seconds += time.perf_counter() - start

    def seconds(self) -> float:
        """The measured time, of the slowest worker in every :meth:`run`."""
        return max(values[0] for values in self.share([self._seconds]))

    def traffic(self) -> list[Traffic]:
        """What this run sent and received, without earlier runs on the same transport."""
        if self.serves:
            return []
        now, before = self._transport.traffic, self._before
        return [Traffic(now.bytes_sent - before.bytes_sent, now.bytes_received - before.bytes_received)]

    def share(self, values: Sequence[float]) -> list[list[float]]:
        """See :meth:`Engine.share`."""
        return self._transport.share(values)

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Engine.state_dict`."""
        own = sum(self.traffic(), Traffic())
        return {"seconds": self._seconds, "bytes_sent": own.bytes_sent, "bytes_received": own.bytes_received}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """See :meth:`Engine.load_state_dict`."""
        self._seconds = saved["seconds"]
        now = self._transport.traffic
        self._before = Traffic(now.bytes_sent - saved["bytes_sent"], now.bytes_received - saved["bytes_received"])
