"""Everything of one process that a checkpoint holds, and how it is put back."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError

_RANDOM = "torch random generator"


class Stateful(Protocol):
    """A model, an optimizer, a scheduler, a scaler, or anything else that can be saved."""

    def state_dict(self) -> dict[str, Any]:
        """What :func:`torch.load` reads with ``weights_only=True``."""
        ...

    def load_state_dict(self, saved: dict[str, Any], /) -> Any:
        """Go on where :meth:`state_dict` was taken."""
        ...


@runtime_checkable
class Exchanging(Stateful, Protocol):
    """What of ours is in a checkpoint: the handle of :func:`thinwire.synchronize` or :func:`thinwire.compress_ddp`."""

    transport: Transport

    @property
    def steps_together(self) -> bool:
        """Whether all processes that exchange with each other make the same steps."""
        ...

    def load_resized(self, saved: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the states of another number of processes."""
        ...


class Parts:
    """The parts of this process, one of which is thinwire's.

    Raises:
        ConfigError: no handle of thinwire among the parts, or several, or one whose processes make no common steps.
    """

    def __init__(self, parts: Mapping[str, Stateful]) -> None:
        ours = {name: part for name, part in parts.items() if isinstance(part, Exchanging)}
        if len(ours) != 1:
            raise ConfigError(
                f"{len(ours)} of the parts {', '.join(parts)} are thinwire's; give the one that thinwire.synchronize "
                "or thinwire.compress_ddp returned"
            )
        self._parts = dict(parts)
        ((self._own_name, self._own),) = ours.items()
        if not self._own.steps_together:
            raise ConfigError(
                "the workers of an asynchronous method are at different steps at any moment, so that no checkpoint "
                "could hold one; save the server's model, from thinwire.serve, instead"
            )
        self.transport = self._own.transport
        self.is_everyone = self.transport.size == dist.get_world_size()
        """Whether there are no other islands."""
        self.rank = self.transport.rank if self.is_everyone else dist.get_rank()
        self.size = dist.get_world_size()

    def save(self) -> memoryview:
        """The states of all parts and of torch's CPU generator, as :func:`torch.save` writes them."""
        buffer = io.BytesIO()
        state = {name: part.state_dict() for name, part in self._parts.items()}
        torch.save({**state, _RANDOM: torch.get_rng_state()}, buffer)
        return buffer.getbuffer()

    def load(self, read: Callable[[int], bytes], size: int) -> None:
        """Put back what ``size`` processes saved.

        Args:
            read: what process ``r`` saved.
            size: how many saved.

        Raises:
            ConfigError: what was saved is of another training, or cannot be put back in another number of processes.
        """
        rank = self.rank
        if size == self.size:
            saved = self._unpacked(read(rank))
            for name, part in self._parts.items():
                part.load_state_dict(saved[name])
            torch.set_rng_state(saved[_RANDOM])
            return
        if not self.is_everyone:
            raise ConfigError(
                f"{size} processes saved, and there are {self.size}: islands are resumed with as many processes as "
                "before, since each process has the shard and the residual of its place"
            )
        everyone = [self._unpacked(read(other)) for other in range(size)]
        for name, part in self._parts.items():
            if name != self._own_name:
                part.load_state_dict(everyone[rank % size][name])
        model = next((name for name, part in self._parts.items() if isinstance(part, torch.nn.Module)), None)
        if model is None:
            raise ConfigError("the model is not among the parts; going on with another number of processes needs it")
        self._own.load_resized([each[self._own_name] for each in everyone], [each[model] for each in everyone])
        if rank < size:
            torch.set_rng_state(everyone[rank][_RANDOM])

    def _unpacked(self, contents: bytes) -> dict[str, Any]:
        saved: dict[str, Any] = torch.load(io.BytesIO(contents), weights_only=True)
        missing = sorted(self._parts.keys() - saved.keys())
        if missing:
            held = ", ".join(sorted(saved.keys() - {_RANDOM}))
            raise ConfigError(f"the checkpoint has no {', '.join(missing)}, only {held}")
        return saved
