"""What a process trains by itself, for a file that outlasts it: its parameters, and its optimizer's state."""

from collections.abc import Mapping
from typing import Any

from thinwire.distributed.shared_model import write_parameters
from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.worker import Worker
from thinwire.worker.parameters import local_part


def own_state(worker: Worker) -> dict[str, Any]:
    """The trained parameters by name, and the state of the optimizer that trains them."""
    own = {name: local_part(each.detach()).cpu() for name, each in worker.parameters().items()}
    return {"parameters": own, "optimizer": worker.optimizer.state_dict()}


def take_own_state(worker: Worker, saved: Mapping[str, Any], path: StrPath) -> None:
    """Let a worker train on from what :func:`own_state` gave.

    Args:
        worker: of the same model and the same kind of optimizer.
        saved: what was read; it may hold more.
        path: where it was read, for the error.

    Raises:
        ConfigError: it is of another model or of another optimizer; nothing is changed.
    """
    shapes = {name: local_part(each.detach()).shape for name, each in worker.parameters().items()}
    if shapes != {name: each.shape for name, each in saved["parameters"].items()}:
        raise ConfigError(f"{path} has the parameters of another model")
    try:
        worker.optimizer.load_state_dict(saved["optimizer"])
    except (ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(f"{path} has the state of another optimizer ({error})") from error
    write_parameters(worker, saved["parameters"])
