"""What the integrations have in common: a method at work in one process, and its part of a checkpoint."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from thinwire.distributed.bucket_exchange import GradScaler
from thinwire.distributed.checkpoints import Checkpoints
from thinwire.distributed.comm_hook import can_overlap, compress_ddp
from thinwire.distributed.compressed_gradients import CompressedGradients
from thinwire.distributed.hooked_model import ddp_in
from thinwire.distributed.parts import Stateful
from thinwire.distributed.synchronizer import Synchronizer, synchronize
from thinwire.errors import ConfigError
from thinwire.methods import Method, parse_method
from thinwire.worker import needs_server


class Attachment:
    """A method at work on a framework's model and optimizer.

    Frameworks save the model and the optimizer of process 0. That is not enough to go on from: residuals are each
    process's own, and between two exchanges of a method with local steps so are parameters and the optimizer's state.
    So each process adds a file of its own to the framework's checkpoint.

    Args:
        model: wrapped in DDP, to compress its gradients; else the optimizer is what exchanges.
        optimizer: torch's own, without a framework's wrapper.
        method: as given by :func:`parsed`.
        seed: the same on every process; addresses the method's randomness.
        scaler: of the loss, under mixed precision.
        warn_if_slower: as that of :func:`thinwire.compress_ddp`.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, method: Method, seed: int,
        scaler: GradScaler | None = None, warn_if_slower: bool = True,
    ) -> None:  # fmt: skip
        self.handle: Synchronizer | CompressedGradients
        self._parts: dict[str, Stateful]
        if any(isinstance(module, DistributedDataParallel) for module in model.modules()):
            wrapped = ddp_in(model)  # frameworks may compile it
            self.model: nn.Module = wrapped.module
            self.handle = compress_ddp(wrapped, method, scaler=scaler, seed=seed, warn_if_slower=warn_if_slower)
            # Parameters and the optimizer's state are everyone's, and the framework saves them.
            self._parts = {"model": self.model, "thinwire": self.handle}
        else:
            self.model = model
            self.handle = synchronize(optimizer, model, method, seed=seed)
            self._parts = {"model": model, "optimizer": optimizer, "thinwire": self.handle}
        self._shown = contextlib.ExitStack()
        self._is_shown = False

    @property
    def message_bytes(self) -> int:
        """Bytes this process handed to the exchange so far, encoded; they are saved and restored too."""
        return self.handle.message_bytes

    def show_shared(self) -> None:
        """Let the model hold the parameters that all processes have in common, until :meth:`show_own`."""
        if isinstance(self.handle, Synchronizer) and not self._is_shown:
            self._shown.enter_context(self.handle.shared_model())
            self._is_shown = True

    def show_own(self) -> None:
        """Let the model hold this process's own parameters again, to train them."""
        self._shown.close()
        self._is_shown = False

    def shared_state(self) -> dict[str, Any]:
        """The model's ``state_dict`` with the parameters that all processes have in common: what to publish."""
        if isinstance(self.handle, CompressedGradients):
            return self.model.state_dict()
        with self.handle.shared_model() as model:
            return {name: value.clone() for name, value in model.state_dict().items()}

    def save(self, folder: str | Path, step: int) -> None:
        """Write this process's file; all processes call it.

        Raises:
            ConfigError: some process could not write.
        """
        self.show_own()
        transport = self.handle.transport
        # What is there is of a checkpoint of the same name: were it left, a later one could be found in place of ours.
        if transport.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
        transport.share([0.0])
        Checkpoints(folder, self._parts, keep=1).save(step)

    def load(self, folder: str | Path, step: int | None = None) -> None:
        """Read this process's file, or, if there were more or fewer processes, what this one needs of theirs.

        Args:
            folder: as given to :meth:`save`.
            step: that of the framework's checkpoint, if it knows.

        Raises:
            ConfigError: there is no complete checkpoint, it is damaged, or of another step, method or model.
        """
        found = Checkpoints(folder, self._parts, keep=1).load()
        if found is None or step not in (None, found):
            of_what = "complete state of thinwire" if found is None else f"state of step {step}, only of step {found}"
            raise ConfigError(
                f"{folder} has no {of_what}: the run was ended while it saved, or saved without thinwire; "
                "resume from the checkpoint before"
            )

    def close(self) -> None:
        """Detach; call it before the process group is destroyed."""
        self.show_own()
        self.handle.close()

    def keep_shared(self) -> None:
        """Leave the parameters that all processes have in common in the model for good: training is over."""
        self.show_own()
        if isinstance(self.handle, Synchronizer):
            self.handle.keep_shared()


def parsed(method: str | Method) -> Method:
    """The method, if a framework can run it: its processes are all workers.

    Raises:
        ConfigError: an unknown method, or one with a server.
    """
    product = parse_method(method) if isinstance(method, str) else method
    if needs_server(product):
        raise ConfigError(
            f"{product} needs a process that is a server, and a framework's processes are all workers; take a method "
            "without a server, or a script of your own with thinwire.serve"
        )
    return product


def wants_ddp(method: Method) -> bool:
    """Whether the method compresses DDP's gradients, overlapped with backward; else the model must not be wrapped."""
    return can_overlap(method)
