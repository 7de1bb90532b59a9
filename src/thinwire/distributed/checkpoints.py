"""Checkpoints of a training over processes: atomic, checked when read, and for another number of processes too."""

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from thinwire.arrays import CPU
from thinwire.distributed.checkpoint_folder import CheckpointFolder, Place, file_name
from thinwire.distributed.checkpoint_parts import Parts, Stateful
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError, NumericsError
from thinwire.files import FolderLock, StrPath, write_atomically
from thinwire.kernels.crc32c import crc32c_array
from thinwire.steps import bytes_of, text_of

_KINDS = {kind.__name__: kind for kind in (ConfigError, NumericsError)}


class Checkpoints:
    """Saves and finds everything that a run needs to go on, one file a process, in a folder that all processes see.

    A checkpoint is written beside the others, and counts once every process has written its file and process 0 has
    listed all of them, with their lengths and CRC-32C: a process that dies at any moment leaves the one before as the
    newest, also if the same step is saved again. Files are read with ``weights_only=True``. Torch's generators of the
    CPU and of the models' device are saved as well, so that dropout goes on where it was. What else the folder holds is
    left alone.

    With as many processes as before, training goes on with the same bits. With another number, residuals follow the
    rule of :func:`thinwire.worker.resize.resized`; every other part of process ``r`` is that of the saved process
    ``r``, or, of processes that are new, ``r`` modulo the number of the saved ones.

    With islands all of them save together, and are resumed with as many processes.

    Args:
        folder: where to save; checkpoints get folders of their own in it. From the first :meth:`save` to
            :meth:`close`, or the end of the process, no other object may save there.
        parts: what is saved, by name: models, optimizers, handles of thinwire, and what else has a state.
        keep: how many checkpoints are kept, at least 1.
        elsewhere: models that others save, such as a framework its sharded ones; they must be finite too.

    Raises:
        ConfigError: no handle of thinwire among the parts.

    Example::

        checkpoints = thinwire.Checkpoints("runs/a", {"model": model, "optimizer": optimizer, "thinwire": sync})
        for step in range(checkpoints.load() or 0, num_steps):
            train(step)
            if (step + 1) % 100 == 0:
                checkpoints.save(step + 1)
    """

    def __init__(
        self, folder: StrPath, parts: Mapping[str, Stateful], *, keep: int = 2, elsewhere: Sequence[nn.Module] = ()
    ) -> None:
        if keep < 1:
            raise ConfigError(f"keep = {keep} was given; at least one checkpoint is kept")
        self._folder = CheckpointFolder(folder)
        self._lock = FolderLock(folder)
        self._parts = Parts(parts, elsewhere)
        # Islands must agree on what counts, and a handle's transport ends at its own.
        if self._parts.is_everyone:
            self._transport = self._parts.transport
        else:
            self._transport = Transport(device=self._parts.device or CPU)
        self._keep = keep
        self._damaged: set[Place] = set()

    def save(self, step: int, *, needs_finite: bool = True, replaces: bool = False) -> None:
        """Write a checkpoint; every process calls it after the same step, and returns when the checkpoint counts.

        Args:
            step: how many steps were made.
            needs_finite: whether a model that holds NaN or inf is refused, which would else in time take the place of
                every sound one.
            replaces: whether checkpoints of later steps are old ones that give way, because the training has begun
                again.

        Raises:
            ConfigError: some process could not write, or a part holds what could not be read back, or there are
                checkpoints of later steps, which :meth:`load` would take for newer, or another object saves to the
                folder; on every process. What was there is as it was.
            NumericsError: some process's model is not finite; on every process.
        """
        self._transport.check()
        contents, token = memoryview(b""), ""
        error: ConfigError | NumericsError | None = None
        try:
            if needs_finite:
                self._parts.check_finite()
            contents = self._parts.save()
            if self._transport.rank == 0:
                token = self._begin(step, replaces)
        except (ConfigError, NumericsError) as caught:
            error = caught
        token = self._agree(error, token)[0]
        try:
            self._write(token, step, contents)
        except BaseException:
            shutil.rmtree(self._folder.partial(token), ignore_errors=True)
            raise
        if self._transport.rank == 0:
            self._folder.keep(self._keep, self._damaged)
        self._damaged.clear()

    def load(self, step: int | None = None) -> int | None:
        """Load the newest checkpoint into the parts; its step, or None if there is none.

        Args:
            step: load that of this step instead.

        Raises:
            ConfigError: none that is there can be read on every process, or it is of another training.

        Warns:
            UserWarning: the newest is damaged, and one before it was loaded.
        """
        is_main = self._transport.rank == 0
        names = [place.name for place in self._folder.candidates(step)] if is_main else []
        problems: list[str] = []
        for place in filter(None, map(Place.of, self._agree(None, names)[0])):
            contents: dict[int, bytes] = {}
            problem = ""
            try:
                contents = self._read(place)
            except ConfigError as error:
                problem = str(error)
            found = [each for each in self._share(problem) if each]
            if not found:
                self._parts.load(contents.pop, len(self._folder.manifest(place).files))
                for each in problems if is_main else ():
                    warnings.warn(f"{each}; that of step {place.step} was loaded instead", stacklevel=2)
                return place.step
            problems.append(found[0])
            self._damaged.add(place)
        if problems:
            raise ConfigError(f"{problems[0]}. There is no other one to go on from")
        return None

    def steps(self) -> list[int]:
        """The steps of the checkpoints that count, ascending; the same on every process, and all call it."""
        steps = sorted({place.step for place in self._folder.sound()}) if self._transport.rank == 0 else []
        found: list[int] = self._agree(None, steps)[0]
        return found

    def close(self) -> None:
        """Let another object save to the folder."""
        self._lock.release()

    def _begin(self, step: int, replaces: bool) -> str:
        """On process 0: see that nothing is in the way; a token for the new checkpoint."""
        path = self._folder.path
        holder = self._lock.acquire()
        if holder:
            raise ConfigError(
                f"{holder} saves to {path} as well, and one would remove what the other saved; give each a folder of "
                "its own, put several handles of one script into one Checkpoints object, or close() the other one"
            )
        newest = max((place.step for place in self._folder.sound() if place not in self._damaged), default=-1)
        if newest > step and not replaces:
            raise ConfigError(
                f"{path} holds a checkpoint of step {newest}, and one of step {step} was to be saved beside "
                "it; load before training, or give a folder of its own"
            )
        return self._folder.begin()

    def _write(self, token: str, step: int, contents: memoryview) -> None:
        written, failure = [0, 0], ""
        try:
            write_atomically(self._folder.partial(token) / file_name(self._parts.rank, self._parts.size), contents)
            written = [contents.nbytes, int(crc32c_array(np.frombuffer(contents, np.uint8)))]
        except ConfigError as error:
            failure = str(error)
        everyone = self._share([failure, written])
        self._refuse(step, [each for each, _ in everyone])
        if self._transport.rank == 0:
            try:
                self._folder.publish(token, step, [files for _, files in everyone])
            except (ConfigError, OSError) as error:
                failure = str(error)
        self._refuse(step, self._share(failure))

    def _refuse(self, step: int, failures: Sequence[str]) -> None:
        failed = [rank for rank, failure in enumerate(failures) if failure]
        if failed:
            raise ConfigError(
                f"the checkpoint of step {step} could not be written to {self._folder.path} by processes {failed}: "
                f"{failures[failed[0]]}. What was there still counts"
            )

    def _read(self, place: Place) -> dict[int, bytes]:
        """What this process needs of a checkpoint: the files by rank."""
        folder = self._folder.path / place.name
        if not folder.is_dir():
            raise ConfigError(f"process 0 found {folder}, which another does not see; use a folder that all share")
        files = self._folder.manifest(place).files
        return {rank: _checked(folder / file_name(rank, len(files)), *files[rank]) for rank in self._needed(len(files))}

    def _needed(self, size: int) -> Sequence[int]:
        return [self._parts.rank] if size == self._parts.size else range(size)

    def _agree(self, error: ConfigError | NumericsError | None, message: Any) -> list[Any]:
        """Everybody's message; or, on every process, the error that one of them has met."""
        kind = "" if error is None else type(error).__name__
        everyone = self._share([kind, str(error), message])
        for kind, text, _ in everyone:
            if kind:
                raise _KINDS[kind](text) from error
        return [each for _, _, each in everyone]

    def _share(self, message: Any) -> list[Any]:
        return [json.loads(text_of(each)) for each in self._transport.share_bytes(bytes_of(json.dumps(message)))]


def _checked(path: Path, num_bytes: int, crc: int) -> bytes:
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the checkpoint {path} cannot be read ({error.strerror or error})") from error
    if len(contents) != num_bytes or crc32c_array(np.frombuffer(contents, np.uint8)) != crc:
        raise ConfigError(
            f"the checkpoint {path} is damaged: its {len(contents)} bytes are not the {num_bytes} that were written"
        )
    return contents
