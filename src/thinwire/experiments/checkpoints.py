"""Checkpoints of a run: one file a worker, written atomically, the last two kept."""

import functools
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from thinwire.experiments.engines import Engine
from thinwire.files import StrPath, write_beside

NUM_KEPT = 2
"""A crash while a step is being saved leaves the one before, which every worker then has in full."""
_NAME = re.compile(r"step-(\d{8,})")


class RunCheckpoints:
    """Saves and finds the states of the local workers of one run in ``folder/step-NNNNNNNN/``.

    Args:
        folder: of the run's checkpoints.
        engine: of the run.
        ranks: the numbers of the local states, each of which is a file.
    """

    def __init__(self, folder: StrPath, engine: Engine, ranks: Sequence[int]) -> None:
        self._folder = Path(folder)
        self._engine = engine
        self._ranks = ranks

    def save(self, step: int, workers: list[dict[str, Any]]) -> None:
        """Write the states of the local workers, of the server and the engine; keep the last two checkpoints.

        Raises:
            ConfigError: they cannot be written.
        """
        folder = self._step_folder(step)
        for rank, state in zip(self._ranks, workers, strict=True):
            _write(folder / f"rank-{rank:04d}.pt", state)
        # The engine's file comes last: where it is, the local workers' files are.
        _write(self._engine_file(step), self._engine.state_dict())
        for old in self._own_steps()[:-NUM_KEPT]:
            shutil.rmtree(self._step_folder(old), ignore_errors=True)

    def load(self, fits: Callable[[int], bool]) -> tuple[int, list[dict[str, Any]]]:
        """The newest step that every process has saved in full and can read, and the local workers' states there.

        The engine's clock and counts are set. Later checkpoints no longer count: the run makes these steps again, and
        not all of their files are replaced at one moment.

        Args:
            fits: whether this process can go on from a step; if one cannot, none does.

        Returns:
            Step 0 and no states if there is none: the run begins anew.

        Warns:
            UserWarning: a checkpoint cannot be read.
        """
        step, states = 0, []
        for candidate in self._common_steps():
            found, problem = self._read(candidate)
            is_sound = not problem and fits(candidate)
            if all(values[0] for values in self._engine.share([float(is_sound)])):
                self._engine.load_state_dict(found.pop())
                step, states = candidate, found
                break
            if problem:
                warnings.warn(f"{problem}; the run goes on from what it saved before, or begins anew", stacklevel=2)
        for later in self._own_steps():
            if later > step:
                self._engine_file(later).unlink(missing_ok=True)
        return step, states

    def remove(self) -> None:
        """Delete all of this run's checkpoints."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _common_steps(self) -> list[int]:
        """What every process has saved in full, the newest first; the same answer on every process."""
        own = self._own_steps()[-NUM_KEPT:]
        everyone = self._engine.share([*own, *[-1] * (NUM_KEPT - len(own))])
        common = set.intersection(*({int(step) for step in steps if step >= 0} for steps in everyone))
        return sorted(common, reverse=True)

    def _read(self, step: int) -> tuple[list[dict[str, Any]], str]:
        """The states of the local workers, then that of the engine; why they cannot be read, if so."""
        folder = self._step_folder(step)
        states: list[dict[str, Any]] = []
        for path in (*(folder / f"rank-{rank:04d}.pt" for rank in self._ranks), self._engine_file(step)):
            try:
                states.append(torch.load(path, weights_only=True))
            except Exception as error:  # torch raises all kinds for a damaged file
                return (
                    [],
                    f"the checkpoint {path} cannot be read ({str(error).splitlines()[0] if str(error) else error!r})",
                )
        return states, ""

    def _own_steps(self) -> list[int]:
        names = (found.parent.name for found in self._folder.glob(f"step-*/{self._engine_file(0).name}"))
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)

    def _step_folder(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}"

    def _engine_file(self, step: int) -> Path:
        return self._step_folder(step) / f"engine-{self._ranks[0]:04d}.pt"


def _write(path: Path, state: dict[str, Any]) -> None:
    write_beside(path, functools.partial(torch.save, state))
