"""A backward pass as FSDP2 makes it: where it begins and ends, seen from within."""

import inspect
from collections.abc import Callable

import torch
from torch.utils.checkpoint import CheckpointFunction

from thinwire.distributed.backward_end import queue_after_others
from thinwire.errors import ConfigError


class Backward:
    """Tells of the beginning and the end of backward passes.

    Args:
        begin: called at the first sign of one.
        end: called once FSDP2 has reduced everything, in the thread of the script; what it raises, ``backward()`` does.
    """

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin, self._end = begin, end
        self._task = -1
        """The engine's number of the pass that is under way."""

    def goes_on(self) -> None:
        """There is a sign of a backward pass; of one that failed before its end nothing more is heard.

        Raises:
            ConfigError: it is one of those within another that recompute activations, or there is none.
        """
        task = torch._C._current_graph_task_id()
        if task == -1:
            raise ConfigError(
                "gradients are reduced outside of a backward pass, as schedules of torch.distributed.pipelining do, "
                "and nothing tells when that ends; call backward() yourself, or use thinwire.synchronize with "
                'group=mesh["replicate"]'
            )
        if task == self._task:
            return
        _refuse_reentrant()
        self._begin()
        self._task = task
        queue_after_others(lambda: self._ended(task))

    def _ended(self, task: int) -> None:
        if self._task == task:
            self._task = -1
            self._end()


def _refuse_reentrant() -> None:
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is CheckpointFunction.backward.__code__:
            raise ConfigError(
                "activation checkpointing with use_reentrant=True makes backward passes within the backward pass, and "
                "nothing tells its end; give checkpoint(..., use_reentrant=False)"
            )
        frame = frame.f_back
