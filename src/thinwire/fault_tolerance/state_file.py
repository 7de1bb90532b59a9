"""What a participant owes, in a file: written before it votes, so that it survives the participant."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from thinwire.distributed.own_state import own_state, take_own_state
from thinwire.errors import ConfigError
from thinwire.fault_tolerance.participant import Participant
from thinwire.files import StrPath, write_beside

_FORMAT = 2


class StateFile:
    """The file of one participant.

    Args:
        path: where it is, or will be; on a disk that outlasts the process.
    """

    def __init__(self, path: StrPath) -> None:
        self._path = Path(path)

    def write(self, participant: Participant) -> None:
        """All that this participant is before an exchange counts, with its parameters and its optimizer's state.

        Raises:
            ConfigError: the file cannot be written.
        """
        saved = {"format": _FORMAT, "participant": participant.state_dict(), **own_state(participant.worker)}
        write_beside(self._path, lambda file: torch.save(saved, file))

    def read(self, participant: Participant) -> bool:
        """Let a participant be what was written, if there is a file.

        Raises:
            ConfigError: there is another one's, or one that cannot be read.
        """
        if not self._path.exists():
            return False
        try:
            saved: Mapping[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
            known = saved["format"] == _FORMAT
        except Exception as error:  # torch raises of a damaged file whatever its readers do
            raise ConfigError(f"{self._path} cannot be read as a participant's state ({error}); remove it") from error
        if not known:
            raise ConfigError(f"{self._path} is of format {saved['format']}, and this thinwire reads {_FORMAT}")
        participant.load_state_dict(saved["participant"])
        take_own_state(participant.worker, saved, self._path)
        return True
