"""Where the server's state outlives its process."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.files import FolderLock, StrPath, write_beside

NAME = "server.pt"
"""Of the file in the folder; :func:`torch.load` reads it with ``weights_only=True``."""

_UNTRAINED = "untrained.pt"
"""Beside it: frozen parameters and buffers, which are written once."""

_PATIENCE_S = 30.0
"""How long the process of before, which is gone or about to go, may hold the folder."""

_POLL_S = 0.05


class ServerFile:
    """The checkpoint of one server, which holds its folder's lock as long as it lives.

    Args:
        folder: is made if it is not there.
        run: names the training.

    Raises:
        ConfigError: another process writes to the folder, or it cannot be written.
    """

    def __init__(self, folder: StrPath, run: str) -> None:
        self._path = Path(folder) / NAME
        self._run = run
        self._lock = FolderLock(folder)
        end_s = time.monotonic() + _PATIENCE_S
        while holder := self._lock.acquire():
            if time.monotonic() > end_s:
                raise ConfigError(f"{folder} is written to by {holder}; end that, or give another folder")
            time.sleep(_POLL_S)

    def load(self) -> dict[str, Any] | None:
        """What was saved, if anything was; its ``run`` says by which training."""
        return read(self._path)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace what was saved.

        Raises:
            ConfigError: it cannot be written.
        """
        write_beside(self._path, lambda file: torch.save({**state, "run": self._run}, file))

    def save_untrained(self, tensors: Mapping[str, Tensor]) -> None:
        """What does not change, before :meth:`save` is called first.

        Raises:
            ConfigError: it cannot be written.
        """
        write_beside(self._path.with_name(_UNTRAINED), lambda file: torch.save(dict(tensors), file))

    def load_untrained(self) -> dict[str, Tensor]:
        """What :meth:`save_untrained` was given."""
        found: dict[str, Tensor] = torch.load(self._path.with_name(_UNTRAINED), map_location="cpu", weights_only=True)
        return found


def read(path: StrPath) -> dict[str, Any] | None:
    """The state in a file, if the file is there.

    Raises:
        ConfigError: it is no server's.
    """
    if not Path(path).exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        state["run"]
    except Exception as error:  # whatever torch makes of bytes that it has not written
        raise ConfigError(
            f"{path} is not the state of a server ({error}); remove it, or give another folder"
        ) from error
    return state


def taken(folder: StrPath | None) -> ConfigError:
    """The error for a folder with another training's state."""
    return ConfigError(
        f"{folder} has the server of another training; go on from its model with resume=True, or give another folder"
    )
