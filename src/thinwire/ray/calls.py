"""Calls to actors: what they raise, raised here; tensors as bytes that are read with ``weights_only=True``."""

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thinwire.errors import ThinwireError, WorkerError
from thinwire.plugins import import_package
from thinwire.ray.seats import Reply
from thinwire.ray.worker import Start


def ray_package() -> Any:
    """Ray itself.

    Raises:
        ConfigError: it is not installed.
    """
    return import_package("ray", "thinwire.ray")


def result_of(call: Any, who: str, timeout_s: float | None = None) -> Any:
    """What a call to an actor returns.

    Args:
        call: Ray's reference.
        who: was called, for the message.
        timeout_s: how long to wait; for ever by default.

    Raises:
        ThinwireError: that which the actor raised.
        WorkerError: the actor raised another error, is gone, or did not answer in time.
    """
    ray = ray_package()
    try:
        return ray.get(call, timeout=timeout_s)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ThinwireError):
            raise error.cause from error
        raise WorkerError(f"{who} failed: {error.cause or error}") from error
    except ray.exceptions.RayError as error:
        raise WorkerError(f"{who} is gone or does not answer: {str(error).splitlines()[0]}") from error


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors by name, for :func:`from_bytes`."""
    file = io.BytesIO()
    torch.save(dict(tensors), file)
    return file.getvalue()


def from_bytes(contents: bytes) -> dict[str, Tensor]:
    """What :func:`to_bytes` was given, on the CPU.

    Example:
        >>> from_bytes(to_bytes({"w": torch.ones(2)}))
        {'w': tensor([1., 1.])}
    """
    found: dict[str, Tensor] = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
    return found


class RayServer:
    """The server's actor, as a worker reaches it. Ray makes a call once more where the actor was restarted meanwhile.

    Args:
        actor: Ray's handle.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def enter(self, rank: int, terms: str, digests: Mapping[str, bytes]) -> Start:
        """See :meth:`thinwire.ray.worker.WorkerCalls.enter`."""
        size, names, tensors = self._result(self._actor.enter.remote(rank, terms, dict(digests)))
        return Start(size, tuple(names), from_bytes(tensors))

    def exchange(self, rank: int, sequence: int, size: int, message: bytes) -> Reply:
        """See :meth:`thinwire.ray.link.ServerCalls.exchange`."""
        return Reply(*self._result(self._actor.exchange.remote(rank, sequence, size, message)))

    def finish(self, rank: int, sequence: int, norm: float, bytes_resent: int) -> Reply:
        """See :meth:`thinwire.ray.link.ServerCalls.finish`."""
        return Reply(*self._result(self._actor.finish.remote(rank, sequence, norm, bytes_resent)))

    def _result(self, call: Any) -> Any:
        return result_of(call, "the server")
