"""Checkpoints of a run: one file a worker, written atomically, the last two kept."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from thinwire.errors import ConfigError
from thinwire.experiments.engines import Engine

NUM_KEPT = 2
"""A crash while a step is being saved leaves the one before, which every worker then has in full."""


class Checkpoints:
    """Saves and finds the states of the local workers of one run in ``folder/step-NNNNNN/``."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self._folder = folder
        self._engine = engine
        self._ranks = [*engine.local_ranks, *([engine.size] if engine.serves else [])]

    def save(self, step: int, workers: list[dict[str, Any]]) -> None:
        """Write the states of the local workers, of the server and the engine; keep the last two checkpoints."""
        folder = self._folder / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for rank, state in zip(self._ranks, workers, strict=True):
            _write(folder / f"rank-{rank:04d}.pt", state)
        # The engine's file comes last: where it is, the local workers' files are.
        _write(folder / f"engine-{self._ranks[0]:04d}.pt", self._engine.state_dict())
        for old in self._own_steps()[:-NUM_KEPT]:
            shutil.rmtree(self._folder / f"step-{old:08d}", ignore_errors=True)

    def latest(self) -> int | None:
        """The newest step that every process has saved in full; the same answer on every process."""
        own = self._own_steps()[-NUM_KEPT:]
        everyone = self._engine.share([*own, *[-1] * (NUM_KEPT - len(own))])
        common = set.intersection(*({int(step) for step in steps if step >= 0} for steps in everyone))
        return max(common, default=None)

    def load(self, step: int) -> list[dict[str, Any]]:
        """The local workers' states at ``step``; the engine's clock and counts are set.

        Raises:
            ConfigError: a file cannot be read.
        """
        folder = self._folder / f"step-{step:08d}"
        self._engine.load_state_dict(_read(folder / f"engine-{self._ranks[0]:04d}.pt"))
        return [_read(folder / f"rank-{rank:04d}.pt") for rank in self._ranks]

    def remove(self) -> None:
        """Delete all of this run's checkpoints."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _own_steps(self) -> list[int]:
        name = f"engine-{self._ranks[0]:04d}.pt"
        return sorted(int(found.parent.name.removeprefix("step-")) for found in self._folder.glob(f"step-*/{name}"))


def _write(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def _read(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except Exception as error:
        raise ConfigError(
            f"the checkpoint {path} cannot be read ({error}); delete its folder to begin this run anew"
        ) from error
    return state
