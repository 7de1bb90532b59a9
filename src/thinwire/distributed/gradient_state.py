"""What handles of gradients save and load: memories by parameter name, and counters."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from thinwire.distributed.buckets import BucketChannels, parameter_of, plain_key
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.network import Traffic
from thinwire.worker.exchange_runner import ExchangeRunner, check_same
from thinwire.worker.parameters import plain_name
from thinwire.worker.resize import resized


@dataclass(frozen=True, slots=True)
class Remembered:
    """A saved state that is of this method and model.

    Args:
        counters: as they were saved.
        tensors: by parameter name, without the marks of what wraps a model.
        cuts: the names of each bucket.
    """

    counters: Mapping[str, Any]
    tensors: dict[str, Tensor]
    cuts: list[list[str]]


@dataclass(frozen=True, slots=True, eq=False)
class GradientState:
    """The state of one process.

    Args:
        runner: of the exchanges.
        buckets: the memories.
        transport: with the traffic.
    """

    runner: ExchangeRunner
    buckets: BucketChannels
    transport: Transport

    def saved(self) -> dict[str, Any]:
        """All of it; it loads with ``weights_only=True``."""
        traffic = self.transport.traffic
        counters = {
            **self.runner.identity(),
            "num_steps": self.runner.num_steps,
            "message_bytes": self.runner.message_bytes,
            "link": [traffic.bytes_sent, traffic.bytes_received],
            "buckets": self.buckets.cuts(),
        }
        return {"counters": counters, "tensors": self.buckets.tensors()}

    def read(self, saved: Mapping[str, Any], names: Collection[str]) -> Remembered:
        """What :meth:`saved` gave.

        Args:
            saved: the state.
            names: of the parameters that there are.

        Raises:
            ConfigError: it is of another rank, number of processes, seed, method or model.
        """
        counters = saved["counters"]
        check_same(counters, self.runner.identity(), "process")
        tensors = {plain_key(name): tensor for name, tensor in saved["tensors"].items()}
        cuts = [[plain_name(name) for name in cut] for cut in counters["buckets"]]
        unknown = {parameter_of(name) for name in tensors}.union(*cuts) - set(names)
        if unknown:
            raise ConfigError(f"the saved state is of another model: this one has no {', '.join(sorted(unknown)[:3])}")
        return Remembered(counters, tensors, cuts)

    def take(self, found: Remembered) -> None:
        """Go on where it was saved."""
        self.buckets.load(found.tensors, found.cuts)
        self.runner.num_steps = found.counters["num_steps"]
        self.runner.message_bytes = found.counters["message_bytes"]
        self.transport.traffic = Traffic(*found.counters["link"])

    def resized(self, saved: Sequence[Mapping[str, Any]], trained: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Any]:
        """This process's state, of those of another number of them; see :func:`thinwire.worker.resize.resized`.

        Raises:
            ConfigError: the saved processes' models differ, or they hold what has no meaning for another number.
        """
        state, _ = resized(self.runner.method, saved, trained, self.transport.rank, self.transport.size)
        if self.transport.rank >= len(saved):
            state["counters"]["link"] = [0, 0]
        return state
