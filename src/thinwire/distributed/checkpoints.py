"""Checkpoints of a training over processes: atomic, checked when read, and for another number of processes too."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.kernels.crc32c import crc32c_array

_COMPLETE = "complete.json"


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

    def load_resized(self, saved: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the states of another number of processes."""
        ...


class Checkpoints:
    """Saves and finds everything that a run needs to go on, one file a process, in a folder that all processes see.

    A checkpoint counts only once every process has written its file and process 0 has then listed all of them, with
    their lengths and CRC-32C: a process that dies at any moment leaves the one before as the newest. Files are read
    with ``weights_only=True``. Torch's CPU generator is saved as well, so that dropout goes on where it was.

    With as many processes as before, training goes on with the same bits. With another number, residuals follow the
    rule of :func:`thinwire.worker.resize.resized`; every other part of process ``r`` is that of the saved process
    ``r``, or, of processes that are new, ``r`` modulo the number of the saved ones.

    Args:
        folder: where to save; checkpoints get folders of their own in it.
        parts: what is saved, by name: the model, the optimizer, one handle of thinwire, and what else has a state.
        keep: how many checkpoints are kept, at least 1.

    Raises:
        ConfigError: no handle of thinwire among the parts, or several.

    Example::

        checkpoints = thinwire.Checkpoints("runs/a", {"model": model, "optimizer": optimizer, "thinwire": sync})
        for step in range(checkpoints.load(), num_steps):
            train(step)
            if (step + 1) % 100 == 0:
                checkpoints.save(step + 1)
    """

    def __init__(self, folder: str | Path, parts: Mapping[str, Stateful], *, keep: int = 2) -> None:
        ours = {name: part for name, part in parts.items() if isinstance(part, Exchanging)}
        if len(ours) != 1:
            raise ConfigError(
                f"{len(ours)} of the parts {', '.join(parts)} are thinwire's; give the one that thinwire.synchronize "
                "or thinwire.compress_ddp returned"
            )
        if keep < 1:
            raise ConfigError(f"keep = {keep} was given; at least one checkpoint is kept")
        self._folder = Path(folder)
        self._parts = dict(parts)
        ((self._own_name, self._own),) = ours.items()
        self._transport = self._own.transport
        self._keep = keep

    def save(self, step: int) -> None:
        """Write a checkpoint; every process calls it after the same step, and returns when the checkpoint counts.

        Raises:
            ConfigError: some process could not write, on every process; older checkpoints are as they were.
        """
        rank, size = self._transport.rank, self._transport.size
        folder = self._folder / _name(step)
        state = {name: part.state_dict() for name, part in self._parts.items()}
        written: list[float] = [-1.0, 0.0]
        failure = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            written = list(map(float, _write_checked(folder / _file(rank, size), state)))
        except OSError as error:
            failure = f": {error}"
        files = self._transport.share(written)
        if all(num_bytes >= 0 for num_bytes, _ in files) and rank == 0:
            try:
                contents = {"step": step, "files": [[int(num_bytes), int(crc)] for num_bytes, crc in files]}
                write_atomically(folder / _COMPLETE, json.dumps(contents).encode())
                self._remove_older(step)
            except OSError as error:
                failure = f": {error}"
        failed = [other for other, (bad,) in enumerate(self._transport.share([float(bool(failure))])) if bad]
        if failed:
            raise ConfigError(
                f"the checkpoint of step {step} could not be written to {folder} by processes {failed}{failure}; the "
                "one before still counts. Make room or give another folder"
            )

    def load(self) -> int:
        """Load the newest checkpoint that counts into the parts; its step, or 0 if there is none.

        Raises:
            ConfigError: a file is missing, damaged, or of another training.
        """
        found = self._steps()
        (step,), *_ = self._transport.share([float(found[-1] if found else -1)])
        if step < 0:
            return 0
        folder = self._folder / _name(int(step))
        manifest = _manifest(folder)
        if manifest is None:
            raise ConfigError(f"process 0 found {folder}, which this process does not see; use a folder that all share")
        size = len(manifest["files"])
        own = self._transport.rank % size
        if size == self._transport.size:
            self._load_same(self._read(folder, manifest, own))
        else:
            self._load_resized(folder, manifest)
        return int(step)

    def _load_same(self, saved: Mapping[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(saved[name])
        torch.set_rng_state(saved[_RANDOM])

    def _load_resized(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        size = len(manifest["files"])
        rank = self._transport.rank
        everyone = [self._read(folder, manifest, other) for other in range(size)]
        for name, part in self._parts.items():
            if name != self._own_name:
                part.load_state_dict(everyone[rank % size][name])
        model = next((name for name, part in self._parts.items() if isinstance(part, torch.nn.Module)), None)
        if model is None:
            raise ConfigError("the model is not among the parts; going on with another number of processes needs it")
        self._own.load_resized([each[self._own_name] for each in everyone], [each[model] for each in everyone])
        if rank < size:
            torch.set_rng_state(everyone[rank][_RANDOM])

    def _read(self, folder: Path, manifest: Mapping[str, Any], rank: int) -> dict[str, Any]:
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
        saved: dict[str, Any] = torch.load(io.BytesIO(contents), weights_only=True)
        missing = sorted(self._parts.keys() - saved.keys())
        if missing:
            raise ConfigError(f"the checkpoint {path} has no {', '.join(missing)}, only {', '.join(sorted(saved))}")
        return saved

    def _steps(self) -> list[int]:
        """The steps of checkpoints that count, ascending."""
        folders = self._folder.glob("step-*")
        return sorted(int(each.name.removeprefix("step-")) for each in folders if _manifest(each) is not None)

    def _remove_older(self, step: int) -> None:
        """What no longer counts is taken away: older checkpoints, and older folders that were never complete."""
        kept = [other for other in self._steps() if other <= step][-self._keep :]
        for folder in self._folder.glob("step-*"):
            if int(folder.name.removeprefix("step-")) < kept[0] or _manifest(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)


_RANDOM = "torch random generator"


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


def _write_checked(path: Path, state: dict[str, Any]) -> tuple[int, int]:
    """Save, and say how many bytes there are and what their CRC-32C is."""
    buffer = io.BytesIO()
    torch.save({**state, _RANDOM: torch.get_rng_state()}, buffer)
    contents = buffer.getbuffer()
    write_atomically(path, contents)
    return contents.nbytes, crc32c_array(np.frombuffer(contents, np.uint8))


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads((folder / _COMPLETE).read_text())
    except FileNotFoundError:
        return None
    return manifest


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _file(rank: int, size: int) -> str:
    return f"rank-{rank:05d}-of-{size:05d}.pt"
