"""A file of a worker's state before it hands in a message: whoever dies afterwards neither loses nor repeats it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from thinwire.distributed.own_state import own_state
from thinwire.errors import ConfigError
from thinwire.files import StrPath, write_beside
from thinwire.worker import Worker


class Journal:
    """The worker as it was when it last handed in a message.

    A message follows from the worker's state and the number of the round alone. So who goes on from here makes the
    same message again, and finds in the list of the round whether it counted. The optimizer's state is kept beside it:
    with it the next steps are those of a worker that has not died.

    Args:
        path: the file; of one worker alone.
        run: the name of the run.
    """

    def __init__(self, path: StrPath, run: str) -> None:
        self.path = Path(path)
        self._run = run

    def write(self, handle: Mapping[str, Any], worker: Worker, at_once: bool) -> None:
        """In full or not at all, before the message is handed in.

        Args:
            handle: the state of the worker's handle.
            worker: what it trains, and the optimizer that does.
            at_once: whether the round is the last one of the training.
        """
        state = {"run": self._run, "handle": handle, "at_once": at_once, **own_state(worker)}
        write_beside(self.path, lambda file: torch.save(state, file))

    def read(self) -> Mapping[str, Any] | None:
        """What was written last; None if nothing was.

        Raises:
            ConfigError: the file is of another run, or none of these.
        """
        if not self.path.exists():
            return None
        try:
            state: Mapping[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            run, _ = state["run"], state["optimizer"]
        except Exception as error:  # torch's reader has no error of its own
            raise ConfigError(
                f"{os.fspath(self.path)} is no state file of a worker ({type(error).__name__}); give another place, "
                "or remove it if the worker shall begin anew"
            ) from error
        if run != self._run:
            raise ConfigError(
                f"{os.fspath(self.path)} is of the run {run!r}, not of {self._run!r}; give each run a file of its own"
            )
        return state
