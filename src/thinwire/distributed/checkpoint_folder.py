"""Which folders are checkpoints of ours, and how one comes and goes: whole, or not at all."""

import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinwire.errors import ConfigError
from thinwire.files import StrPath, sync_folder, write_atomically

_COMPLETE = "complete.json"
_PARTIAL = ".thinwire-"
_NAME = re.compile(r"step-(\d{9,})(?:-([1-9]\d*))?")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A folder of a checkpoint: its step, and its number where the name of the step alone was taken.

    Example:
        >>> Place(500).name, Place(500, 2).name
        ('step-000000500', 'step-000000500-2')
        >>> Place.of("step-000000500-2"), Place.of("step-500"), Place.of("step-best")
        (Place(step=500, number=2), None, None)
    """

    step: int
    number: int = 1

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"step-{self.step:09d}" + (f"-{self.number}" if self.number > 1 else "")

    @staticmethod
    def of(name: str) -> "Place | None":
        """The place of that name; None for a folder of the script's own."""
        found = _NAME.fullmatch(name)
        place = None if found is None else Place(int(found[1]), int(found[2] or 1))
        return place if place is not None and place.name == name else None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``complete.json`` lists.

    Args:
        step: the training step.
        files: the length and CRC-32C of each process's file, by rank.
        saved: counts the checkpoints of a folder in the order in which they were saved; 0 of earlier versions.
    """

    step: int
    files: tuple[tuple[int, int], ...]
    saved: int = 0

    def names(self) -> list[str]:
        """The files' names."""
        return [file_name(rank, len(self.files)) for rank in range(len(self.files))]


class CheckpointFolder:
    """The checkpoints in a folder, which may hold files and folders of the script's own beside them."""

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)

    def sound(self) -> dict[Place, Manifest]:
        """Everything that counts, in the order in which it was saved."""
        found: dict[Place, Manifest] = {}
        for place in self._places():
            try:
                found[place] = self.manifest(place)
            except ConfigError:
                continue  # somebody else's, or torn; whoever loads it hears of it
        return dict(sorted(found.items(), key=lambda item: (item[1].saved, item[0])))

    def candidates(self, step: int | None = None) -> list[Place]:
        """What may be loaded, the last saved first; before it what was torn later on, so that it is heard of."""
        sound = list(self.sound())[::-1]
        newest = max((place.step for place in sound), default=-1)
        torn = [place for place in self._places() if place not in sound and place.step > newest]
        return [place for place in (*sorted(torn, reverse=True), *sound) if step in (None, place.step)]

    def manifest(self, place: Place) -> Manifest:
        """What the checkpoint lists.

        Raises:
            ConfigError: there is no list, or it is damaged.
        """
        path = self.path / place.name / _COMPLETE
        try:
            held: Any = json.loads(path.read_bytes())
            manifest = Manifest(
                held["step"], tuple((num_bytes, crc) for num_bytes, crc in held["files"]), held.get("saved", 0)
            )
            numbers = [manifest.step, manifest.saved, *(number for file in manifest.files for number in file)]
            if manifest.step != place.step or not manifest.files or not all(type(each) is int for each in numbers):
                raise ValueError("it is not a list of a checkpoint's files")
        except OSError as error:
            raise ConfigError(f"the checkpoint {path.parent} cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"the checkpoint {path.parent} is damaged: {_COMPLETE} cannot be read") from error
        return manifest

    def partial(self, token: str) -> Path:
        """Where a checkpoint is written to, until it is whole."""
        return self.path / f"{_PARTIAL}{token}"

    def begin(self) -> str:
        """A token for a new checkpoint; what one that failed has left is removed. The lock must be held."""
        for left in self.path.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)
        return secrets.token_hex(6)

    def publish(self, token: str, step: int, files: Iterable[Sequence[int]]) -> Place:
        """Let a checkpoint count whose files are all written.

        Raises:
            ConfigError: it cannot be written, or some file is not seen here.
            OSError: it cannot be renamed.
        """
        partial = self.partial(token)
        saved = 1 + max((each.saved for each in self.sound().values()), default=0)
        manifest = Manifest(step, tuple((num_bytes, crc) for num_bytes, crc in files), saved)
        for rank, (name, (num_bytes, _)) in enumerate(zip(manifest.names(), manifest.files, strict=True)):
            if not (partial / name).is_file() or (partial / name).stat().st_size != num_bytes:
                raise ConfigError(
                    f"process {rank} wrote to a folder that process 0 does not see; use one that all share"
                )
        content = {"step": step, "saved": saved, "files": manifest.files}
        write_atomically(partial / _COMPLETE, json.dumps(content).encode())
        taken = [place.number for place in map(Place.of, os.listdir(self.path)) if place and place.step == step]
        place = Place(step, 1 + max(taken, default=0))
        os.rename(partial, self.path / place.name)
        sync_folder(self.path)
        return place

    def keep(self, count: int, damaged: Iterable[Place]) -> None:
        """Remove all but the ``count`` steps that were saved last, and all that is known to be damaged.

        Only files that a checkpoint lists are removed, and folders that are then empty.
        """
        bad = set(damaged)
        kept: dict[int, Place] = {}
        sound = self.sound()
        for place in reversed(sound):
            if place not in bad and len(kept) < count:
                kept.setdefault(place.step, place)
        for place, manifest in sound.items():
            if place not in kept.values():
                self._remove(self.path / place.name, manifest)

    def _remove(self, folder: Path, manifest: Manifest) -> None:
        try:
            # The list goes last: what is half removed is then removed by the next save.
            for name in (*manifest.names(), _COMPLETE):
                (folder / name).unlink(missing_ok=True)
            if not os.listdir(folder):
                folder.rmdir()
        except OSError as error:
            warnings.warn(f"the old checkpoint {folder} could not be removed ({error.strerror})", stacklevel=2)

    def _places(self) -> list[Place]:
        names = [found.parent.name for found in self.path.glob(f"step-*/{_COMPLETE}")]
        return [place for place in map(Place.of, names) if place is not None]


def file_name(rank: int, size: int) -> str:
    """The file of process ``rank`` of ``size``."""
    return f"rank-{rank:05d}-of-{size:05d}.pt"
