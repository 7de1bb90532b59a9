"""Everything of one process that a checkpoint holds, and how it is put back."""

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from thinwire.arrays import has_streams
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError, NumericsError
from thinwire.worker.parameters import local_part

_RANDOM = "torch random generator"
_DEVICE_RANDOM = "torch random generator of the device"
_UNSAVED = (pickle.PickleError, AttributeError, TypeError, RuntimeError, ValueError)


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

    def exchanged(self) -> dict[str, int]:
        """``id()`` of every parameter that the handle knows, by the name that its state has it by."""
        ...

    def load_resized(self, saved: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the states of another number of processes."""
        ...


class Parts:
    """The parts of this process, thinwire's handles among them.

    Args:
        parts: what is saved, by name.
        elsewhere: models that others save; they are asked whether they are finite, and which device they lie on.

    Raises:
        ConfigError: no handle of thinwire among the parts, or one whose processes make no common steps.
    """

    def __init__(self, parts: Mapping[str, Stateful], elsewhere: Sequence[nn.Module] = ()) -> None:
        self._parts = dict(parts)
        self._elsewhere = {f"model {number + 1} of the script": model for number, model in enumerate(elsewhere)}
        self._handles = {name: part for name, part in self._parts.items() if isinstance(part, Exchanging)}
        if not self._handles:
            raise ConfigError(
                f"none of the parts {', '.join(parts)} is thinwire's; give what thinwire.synchronize or "
                "thinwire.compress_ddp returned, too"
            )
        if not all(handle.steps_together for handle in self._handles.values()):
            raise ConfigError(
                "the workers of an asynchronous method are at different steps at any moment, so that no checkpoint "
                "could hold one; save the server's model, from thinwire.serve, instead"
            )
        self.size = dist.get_world_size()
        handles = list(self._handles.values())
        self.is_everyone = all(handle.transport.size == self.size for handle in handles)
        """Whether there are no other islands."""
        self.transport = handles[0].transport
        self.rank = self.transport.rank if self.is_everyone else dist.get_rank()

    def check_finite(self) -> None:
        """Refuse a model that has gone astray.

        Raises:
            NumericsError: a parameter holds NaN or inf, or a buffer NaN; masks are often -inf.
        """
        for name, model in (self._models() | self._elsewhere).items():
            held: list[tuple[str, Tensor, Callable[[Tensor], Tensor]]] = []
            held += [(each, param, torch.isfinite) for each, param in model.named_parameters()]
            held += [(each, buffer, _is_number) for each, buffer in model.named_buffers()]
            for each, tensor, is_sound in held:
                if not bool(is_sound(local_part(tensor.detach())).all()):
                    raise NumericsError(
                        f"{each!r} of the part {name!r} holds NaN or inf on process {self.rank}, and a checkpoint of "
                        "it would in time take the place of every sound one; load() the one before, or "
                        "save(..., needs_finite=False)"
                    )

    def save(self) -> memoryview:
        """The states of all parts and of torch's generators, as :func:`torch.save` writes them.

        Raises:
            ConfigError: a part holds what :meth:`load` could not read.
        """
        state = {name: part.state_dict() for name, part in self._parts.items()}
        buffer = io.BytesIO()
        try:
            torch.save({**state, **self._random_states()}, buffer)
            _read_structure(buffer)
        except _UNSAVED as error:
            found, where = _culprit(state)
            raise ConfigError(
                f"{where} is a {type(found).__module__}.{type(found).__qualname__}, which could not be read back with "
                "weights_only=True; make it a plain number (float(...), int(...)), text, list, dict or tensor"
            ) from error
        return buffer.getbuffer()

    def load(self, read: Callable[[int], bytes], size: int) -> None:
        """Put back what ``size`` processes saved.

        Args:
            read: what process ``r`` saved; called once for each that is needed.
            size: how many saved.

        Raises:
            ConfigError: what was saved is of another training, or cannot be put back in another number of processes.
        """
        rank = self.rank
        if size == self.size:
            saved = self._unpacked(read(rank))
            for name, part in self._parts.items():
                part.load_state_dict(saved[name])
            self._set_random_states(saved)
            return
        if not self.is_everyone:
            raise ConfigError(
                f"{size} processes saved, and there are {self.size}: islands need as many processes as "
                "before, since each process has the shard and the residual of its rank"
            )
        weights = {name: self._weights_of(handle) for name, handle in self._handles.items()}
        everyone = [self._unpacked(read(other)) for other in range(size)]
        for name, part in self._parts.items():
            if name not in self._handles:
                part.load_state_dict(everyone[rank % size][name])
        for name, handle in self._handles.items():
            model, names = weights[name]
            trained = [{own: each[model][theirs] for own, theirs in names.items()} for each in everyone]
            handle.load_resized([each[name] for each in everyone], trained)
        if rank < size:
            self._set_random_states(everyone[rank])

    def _random_states(self) -> dict[str, Tensor]:
        device = self.device
        found = {} if device is None else {_DEVICE_RANDOM: torch.get_device_module(device).get_rng_state(device)}
        return {_RANDOM: torch.get_rng_state(), **found}

    def _set_random_states(self, saved: Mapping[str, Any]) -> None:
        torch.set_rng_state(saved[_RANDOM])
        device = self.device
        if device is not None and _DEVICE_RANDOM in saved:  # else it was saved by models on the CPU
            torch.get_device_module(device).set_rng_state(saved[_DEVICE_RANDOM], device)

    @property
    def device(self) -> torch.device | None:
        """The device that has a generator of its own, if a model lies on one."""
        models = (*self._models().values(), *self._elsewhere.values())
        params = (param for model in models for param in model.parameters())
        return next((param.device for param in params if has_streams(param.device)), None)

    def _weights_of(self, handle: Exchanging) -> tuple[str, dict[str, str]]:
        """The part that has what the handle exchanges, and the names there by the handle's own names."""
        wanted = handle.exchanged()
        for name, model in self._models().items():
            known = {id(param): each for each, param in model.named_parameters(remove_duplicate=False)}
            if known.keys() >= set(wanted.values()):
                return name, {own: known[param] for own, param in wanted.items()}
        raise ConfigError("the model is not among the parts; add it, since another number of processes needs it")

    def _models(self) -> dict[str, nn.Module]:
        return {name: part for name, part in self._parts.items() if isinstance(part, nn.Module)}

    def _unpacked(self, contents: bytes) -> dict[str, Any]:
        saved: dict[str, Any] = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
        missing = sorted(self._parts.keys() - saved.keys())
        if missing:
            held = ", ".join(sorted(saved.keys() - {_RANDOM}))
            raise ConfigError(f"the checkpoint has no {', '.join(missing)}, only {held}")
        return saved


def _is_number(tensor: Tensor) -> Tensor:
    return ~torch.isnan(tensor)


def _read_structure(buffer: io.BytesIO) -> None:
    """Read everything but the numbers in tensors, by the reader that is to read it later."""
    buffer.seek(0)
    with torch.serialization.skip_data():
        torch.load(buffer, weights_only=True)


def _culprit(value: Any, where: str = "") -> tuple[Any, str]:
    """The innermost value that cannot be read back, and where it is."""
    match value:
        case dict():
            items = list(value.items())
        case list() | tuple():
            items = list(enumerate(value))
        case _:
            items = []
    for key, item in items:
        buffer = io.BytesIO()
        try:
            torch.save(item, buffer)
            _read_structure(buffer)
        except _UNSAVED:
            return _culprit(item, f"{where}[{key!r}]" if where else f"the part {key!r}")
    return value, where
