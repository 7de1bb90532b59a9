"""The common state as an object, for workers that are further behind than messages are kept."""

import io
from collections.abc import Mapping
from typing import Any

import torch

from thinwire.distributed.store_rounds.objects import Objects, message_name, snapshot_name
from thinwire.distributed.store_rounds.settings import RoundSettings
from thinwire.errors import ConfigError, SealError
from thinwire.worker.rounds import Rounds

_KIND = "snapshot"
_SLACK_NUM_BYTES = 1 << 16
_KEPT = 2


def put_snapshot(objects: Objects, rounds: Rounds, number: int) -> None:
    """Put the common state as it is before round ``number``."""
    objects.put(snapshot_name(number), objects.sealed(_to_bytes(rounds), _KIND, number))


def take_newest(objects: Objects, rounds: Rounds, number: int) -> tuple[int | None, list[str]]:
    """Go on from the newest snapshot that is not older than round ``number``; what this worker did itself is kept.

    Returns:
        The number of the round that comes next, None if there is no such snapshot; and what was found that is none.
    """
    most, strange = len(_to_bytes(rounds)) + _SLACK_NUM_BYTES, []
    for name in sorted(objects.names("snapshots"), reverse=True):
        found = _number_of(name)
        if found is None or found <= number:
            continue
        try:
            sealed = objects.get(name, most)
            if sealed is None:
                continue  # deleted since
            state = _from_bytes(objects.opened(sealed, _KIND, found))
            rounds.take_common(state, keeps_drift=True)
        except (SealError, ConfigError) as error:
            strange.append(f"{name}: {error}")
            continue
        return found, strange
    return None, strange


def prune(objects: Objects, settings: RoundSettings, number: int, size: int) -> None:
    """After a snapshot before round ``number``: delete what it makes superfluous.

    The lists of closed rounds stay, a few bytes a worker: so nobody who comes back after a long time can close a round
    a second time. Deletion of what is not there is no error, so that nothing has to be listed.
    """
    end = number - settings.keep_rounds
    for old in range(max(end - 2 * settings.snapshot_every, 0), end):
        for rank in range(size):
            objects.delete(message_name(old, rank))
    names = [name for name in objects.names("snapshots") if _number_of(name) is not None]
    for name in names[:-_KEPT]:
        objects.delete(name)


def _number_of(name: str) -> int | None:
    last = name.rpartition("/")[2]
    return int(last) if last.isdecimal() and name == snapshot_name(int(last)) else None


def _to_bytes(rounds: Rounds) -> bytes:
    file = io.BytesIO()
    torch.save(rounds.common_state(), file)
    return file.getvalue()


def _from_bytes(contents: bytes) -> Mapping[str, Any]:
    """Nothing but tensors, numbers and texts is made of it.

    Raises:
        SealError: it is something else.
    """
    try:
        state: Mapping[str, Any] = torch.load(io.BytesIO(contents), weights_only=True)
    except Exception as error:  # torch's reader has no error of its own
        raise SealError(f"a snapshot cannot be read ({type(error).__name__})") from error
    if not isinstance(state, dict) or set(state) != {"counters", "tensors"}:
        raise SealError("a snapshot is something else than counters and tensors")
    return state
