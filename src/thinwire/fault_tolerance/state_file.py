"""What a participant owes, in a file: written before it votes, so that it survives the participant."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.fault_tolerance.participant import Participant
from thinwire.files import StrPath, write_beside
from thinwire.worker.parameters import local_part

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
        own = {name: local_part(each.detach()).cpu() for name, each in participant.worker.parameters().items()}
        optimizer = participant.worker.optimizer.state_dict()
        saved = {
            "format": _FORMAT, "participant": participant.state_dict(), "parameters": own, "optimizer": optimizer,
        }  # fmt: skip
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
            known, parameters = saved["format"] == _FORMAT, saved["parameters"]
        except Exception as error:  # torch raises of a damaged file whatever its readers do
            raise ConfigError(f"{self._path} cannot be read as a participant's state ({error}); remove it") from error
        if not known:
            raise ConfigError(f"{self._path} is of format {saved['format']}, and this thinwire reads {_FORMAT}")
        participant.load_state_dict(saved["participant"])
        write_parameters(participant, parameters)
        try:
            participant.worker.optimizer.load_state_dict(saved["optimizer"])
        except (ValueError, KeyError, RuntimeError) as error:
            raise ConfigError(f"{self._path} has the state of another optimizer ({error})") from error
        return True


@torch.no_grad()
def write_parameters(participant: Participant, parameters: Mapping[str, Tensor]) -> None:
    """Let the trained parameters have these values.

    Raises:
        ConfigError: they are another model's.
    """
    own = participant.worker.parameters()
    if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in parameters.items()}:
        raise ConfigError("the saved parameters are of another model")
    for name, each in own.items():
        local_part(each).copy_(parameters[name])
    participant.worker.accept_values()
