"""The same parts in a checkpoint of torch.distributed.checkpoint, whatever storage it writes to."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.storage import StorageReader

from thinwire.arrays import CPU
from thinwire.distributed.checkpoint_parts import Parts, Stateful
from thinwire.errors import ConfigError
from thinwire.files import StrPath

_PREFIX = "thinwire.rank-"


def rank_state(parts: Mapping[str, Stateful]) -> dict[str, Tensor]:
    """What :func:`torch.distributed.checkpoint.save` is to save beside a script's own state.

    Under local steps every process has parameters and an optimizer's state of its own, and residuals are each
    process's own under every method; torch would take tensors of one name for one and the same. So a process's parts
    go under a name of its own, as the bytes that :func:`torch.save` writes.

    Args:
        parts: as for :class:`thinwire.Checkpoints`.

    Raises:
        ConfigError: no handle of thinwire among the parts, or a part that holds what could not be read back.

    Example::

        dcp.save({"epoch": epoch, **rank_state(parts)}, checkpoint_id="runs/a/step-100")
        load_rank_state(parts, "runs/a/step-100")
    """
    held = Parts(parts)
    contents = np.frombuffer(held.save(), np.uint8)
    return {_key(held.rank, held.size): torch.from_numpy(contents.copy())}


def load_rank_state(
    parts: Mapping[str, Stateful], checkpoint_id: StrPath | None = None, *, reader: StorageReader | None = None
) -> None:
    """Put back what :func:`rank_state` gave; with another number of processes, as :class:`thinwire.Checkpoints` does.

    Args:
        parts: as they were saved.
        checkpoint_id: the folder that was saved to.
        reader: where to read from, if not from a folder.

    Raises:
        ConfigError: no such checkpoint, nothing of thinwire in it, or a state of another training.
    """
    source, described = open_checkpoint(checkpoint_id, reader)
    sizes = {name: each.size for name, each in described.items() if name.startswith(_PREFIX)}
    if not sizes:
        raise ConfigError(f"the checkpoint has nothing of thinwire, only {', '.join(sorted(described)[:5])}")

    def read(rank: int) -> bytes:
        name = _key(rank, len(sizes))
        contents = {name: torch.empty(sizes[name], dtype=torch.uint8, device=CPU)}
        read_alone(contents, source)
        return contents[name].numpy().tobytes()

    Parts(parts).load(read, len(sizes))


def open_checkpoint(
    checkpoint_id: StrPath | None, reader: StorageReader | None
) -> tuple[StorageReader, Mapping[str, Any]]:
    """What reads a checkpoint, and what is in it, by name.

    Raises:
        ConfigError: there is none.
    """
    if reader is None:
        if checkpoint_id is None:
            raise ConfigError("neither a folder nor a reader was given; give the one that was saved to")
        reader = FileSystemReader(os.fspath(checkpoint_id))
    source: Any = reader
    try:
        return reader, source.read_metadata().state_dict_metadata
    except OSError as error:
        raise ConfigError(f"{checkpoint_id} is no checkpoint of torch.distributed.checkpoint ({error})") from error


def read_alone(wanted: dict[str, Tensor], reader: StorageReader) -> None:
    """Fill these tensors, by name: each process reads what it needs by itself, so that not all need read the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # torch warns of that
        load(wanted, storage_reader=reader, no_dist=True)


def _key(rank: int, size: int) -> str:
    return f"{_PREFIX}{rank:05d}-of-{size:05d}"
