"""A worker kept in touch with the server by its optimizer's own hooks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from thinwire.distributed.optimizer_hooks import OptimizerHooks
from thinwire.distributed.shared_model import shared_model
from thinwire.errors import ConfigError
from thinwire.ray.link import ServerLink
from thinwire.worker import Worker


class AsyncHandle:
    """Lets ``optimizer.step()`` also exchange with the server; made by :meth:`AsyncWorker.synchronize`.

    As a context manager it is closed at the end, and the optimizer is then as it was.
    """

    def __init__(self, worker: Worker, link: ServerLink, clip_grad_norm: float | None, end: Callable[[], None]) -> None:
        if clip_grad_norm is not None and not clip_grad_norm > 0.0:
            raise ConfigError(
                f"clip_grad_norm = {clip_grad_norm!r} was given; give the largest norm, above 0, or leave it out"
            )
        self.worker = worker
        self._link = link
        self._clip_grad_norm = clip_grad_norm
        self._end = end
        self._hooks = OptimizerHooks(worker.optimizer, self._before, self._after)

    @property
    def model(self) -> nn.Module:
        """The replica of this worker."""
        return self.worker.model

    @property
    def is_paused(self) -> bool:
        """Whether the server wants no more messages of this worker: leave the loop of training."""
        return self._link.is_paused

    @property
    def size(self) -> int:
        """How many workers there are, as the server said in its last answer."""
        return self._link.size

    @property
    def message_bytes(self) -> int:
        """Bytes this worker handed to the exchange so far, encoded."""
        return self.worker.message_bytes

    @property
    def bytes_sent(self) -> int:
        """Bytes of all messages so far, with the length before each; what is sent once more does not count."""
        return self._link.traffic.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes of the answers to them."""
        return self._link.traffic.bytes_received

    @property
    def bytes_resent(self) -> int:
        """Bytes of messages that were sent once more, to a server that had been restarted."""
        return self._link.bytes_resent

    def shared_parameters(self) -> dict[str, Tensor]:
        """The server's model as of this worker's last exchange, by parameter name."""
        return self.worker.shared_parameters()

    @contextmanager
    def shared_model(self) -> Iterator[nn.Module]:
        """Inside the block the model holds :meth:`shared_parameters`, to be evaluated or saved; after it its own."""
        with shared_model(self.worker) as model:
            yield model

    def close(self) -> None:
        """Leave the optimizer as it was found, and tell the server that no message follows."""
        if not self._hooks.are_there:
            return
        self._hooks.remove()
        self._end()

    def __enter__(self) -> "AsyncHandle":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; who failed says so by its error."""
        if error is None:
            self.close()
        else:
            self._hooks.remove()

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the optimizer's own step: gradients are hidden if there is to be none, or clipped."""
        is_scaled, overflow = self._hooks.gradients.take_scale()
        self._link.run(self.worker.before_step(skips=is_scaled))
        if overflow:
            self._hooks.gradients.hide()
        elif self._clip_grad_norm is not None:
            self._hooks.gradients.clip(self._clip_grad_norm)

    def _after(self) -> None:
        self._link.run(self.worker.after_step())
        self.worker.resize(self.worker.rank, self._link.size)
