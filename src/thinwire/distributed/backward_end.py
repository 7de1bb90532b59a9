"""The end of a backward pass: what is done then, and errors of other threads that come out of it as they are."""

from collections.abc import Callable

import torch


class BackwardEnd:
    """Calls ``then`` once DDP has written the gradients of a backward pass, and raises what failed during it.

    DDP makes its own error, with another text, of one that a hook's future holds. So such a future gets the bucket as
    it is, and the error is raised by the engine's last callback, from the ``backward()`` of the script.

    Args:
        then: called with whether all went well, in the thread of the script.
    """

    def __init__(self, then: Callable[[bool], None]) -> None:
        self._then = then
        self._error: Exception | None = None

    def expect(self) -> None:
        """Call it while a hook has the last bucket: DDP then asks for its own callback, and ours comes after that."""
        queue_after_others(self._after_ddp)

    def fail(self, error: Exception) -> None:
        """What is to be raised; the first one counts. Any thread may call it, before DDP gets the bucket back."""
        if self._error is None:
            self._error = error

    def _after_ddp(self) -> None:
        error, self._error = self._error, None
        self._then(error is None)
        if error is not None:
            raise error


def is_inside_backward() -> bool:
    """Whether the engine runs, so that it can be asked to call back."""
    return torch._C._current_graph_task_id() != -1


def queue_after_others(callback: Callable[[], None]) -> None:
    """Call it at the end of the backward pass, after all that was to be called then before the end began."""
    _queue(lambda: _queue(callback))


def _queue(callback: Callable[[], None]) -> None:
    torch.autograd.Variable._execution_engine.queue_callback(callback)
