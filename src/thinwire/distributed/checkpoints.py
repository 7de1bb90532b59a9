"""Checkpoints of a training over processes: atomic, checked when read, and for another number of processes too."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thinwire.distributed.parts import Parts, Stateful
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.kernels.crc32c import crc32c_array

_COMPLETE = "complete.json"


class Checkpoints:
    """Saves and finds everything that a run needs to go on, one file a process, in a folder that all processes see.

    A checkpoint counts only once every process has written its file and process 0 has then listed all of them, with
    their lengths and CRC-32C: a process that dies at any moment leaves the one before as the newest. Files are read
    with ``weights_only=True``. Torch's CPU generator is saved as well, so that dropout goes on where it was.

    With as many processes as before, training goes on with the same bits. With another number, residuals follow the
    rule of :func:`thinwire.worker.resize.resized`; every other part of process ``r`` is that of the saved process
    ``r``, or, of processes that are new, ``r`` modulo the number of the saved ones.

    With islands all of them save together, and are resumed with as many processes.

    Args:
        folder: where to save; checkpoints get folders of their own in it.
        parts: what is saved, by name: the model, the optimizer, one handle of thinwire, and what else has a state.
        keep: how many checkpoints are kept, at least 1.

    Raises:
        ConfigError: no handle of thinwire among the parts, or several.

    Example::

        checkpoints = thinwire.Checkpoints("runs/a", {"model": model, "optimizer": optimizer, "thinwire": sync})
        for step in range(checkpoints.load() or 0, num_steps):
            train(step)
            if (step + 1) % 100 == 0:
                checkpoints.save(step + 1)
    """

    def __init__(self, folder: str | Path, parts: Mapping[str, Stateful], *, keep: int = 2) -> None:
        if keep < 1:
            raise ConfigError(f"keep = {keep} was given; at least one checkpoint is kept")
        self._folder = Path(folder)
        self._parts = Parts(parts)
        # Islands must agree on what counts, and a handle's transport ends at its own.
        self._transport = self._parts.transport if self._parts.is_everyone else Transport()
        self._keep = keep

    def save(self, step: int) -> None:
        """Write a checkpoint; every process calls it after the same step, and returns when the checkpoint counts.

        Raises:
            ConfigError: some process could not write, on every process, or there are checkpoints of later steps, which
                :meth:`load` would take for newer; what was there is as it was.
        """
        newest = self._newest()
        if newest > step:
            raise ConfigError(
                f"{self._folder} holds a checkpoint of step {newest}, and one of step {step} was to be saved beside "
                "it; load before training, or give a folder of its own"
            )
        rank, size = self._transport.rank, self._transport.size
        folder = self._folder / _name(step)
        contents = self._parts.save()
        written: list[float] = [-1.0, 0.0]
        failure = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / _file(rank, size), contents)
            written = [float(contents.nbytes), float(crc32c_array(np.frombuffer(contents, np.uint8)))]
        except OSError as error:
            failure = f": {error}"
        files = self._transport.share(written)
        if all(num_bytes >= 0 for num_bytes, _ in files) and rank == 0:
            try:
                manifest = {"step": step, "files": [[int(num_bytes), int(crc)] for num_bytes, crc in files]}
                write_atomically(folder / _COMPLETE, json.dumps(manifest).encode())
                self._remove_older()
            except OSError as error:
                failure = f": {error}"
        failed = [other for other, (bad,) in enumerate(self._transport.share([float(bool(failure))])) if bad]
        if failed:
            raise ConfigError(
                f"the checkpoint of step {step} could not be written to {folder} by processes {failed}{failure}; the "
                "one before still counts. Make room or give another folder"
            )

    def load(self) -> int | None:
        """Load the newest checkpoint that counts into the parts; its step, or None if there is none.

        Raises:
            ConfigError: a file is missing, damaged, or of another training.
        """
        step = self._newest()
        if step < 0:
            return None
        folder = self._folder / _name(step)
        try:
            manifest: dict[str, Any] = json.loads((folder / _COMPLETE).read_text())
        except FileNotFoundError:
            raise ConfigError(
                f"process 0 found {folder}, which this process does not see; use a folder that all share"
            ) from None
        self._parts.load(lambda rank: self._read(folder, manifest, rank), len(manifest["files"]))
        return step

    def _newest(self) -> int:
        """The newest step that counts, as process 0 sees it; -1 if there is none."""
        steps = self._steps() if self._transport.rank == 0 else []
        ((newest,), *_) = self._transport.share([float(max(steps, default=-1))])
        return int(newest)

    def _read(self, folder: Path, manifest: Mapping[str, Any], rank: int) -> bytes:
        path = folder / _file(rank, len(manifest["files"]))
        num_bytes, crc = manifest["files"][rank]
        try:
            contents = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"the checkpoint {path} cannot be read: {error}") from error
        if len(contents) != num_bytes or crc32c_array(np.frombuffer(contents, np.uint8)) != crc:
            raise ConfigError(
                f"the checkpoint {path} is damaged: its {len(contents)} bytes are not the {num_bytes} that were "
                f"written. Delete {folder} to go on from the one before"
            )
        return contents

    def _steps(self) -> list[int]:
        """The steps of checkpoints that count, ascending."""
        return sorted(_step(found.parent) for found in self._folder.glob(f"step-*/{_COMPLETE}"))

    def _remove_older(self) -> None:
        """What no longer counts is taken away: older checkpoints, and older folders that were never complete."""
        kept = self._steps()[-self._keep :]
        for folder in self._folder.glob("step-*"):
            if _step(folder) not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: Path, contents: bytes | memoryview) -> None:
    """Write a file so that it is there in full or not at all, also after a loss of power."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    # Where folders cannot be opened (Windows) there is nothing to be made sure of in this way.
    with contextlib.suppress(PermissionError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _file(rank: int, size: int) -> str:
    return f"rank-{rank:05d}-of-{size:05d}.pt"
