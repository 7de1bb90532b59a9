"""What the integrations have in common: a method at work in one process, and its part of a checkpoint."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from thinwire.distributed.bucket_exchange import GradScaler
from thinwire.distributed.checkpoint_parts import Stateful
from thinwire.distributed.checkpoints import Checkpoints
from thinwire.distributed.comm_hook import can_overlap, compress_ddp
from thinwire.distributed.compressed_gradients import CompressedGradients
from thinwire.distributed.hooked_model import ddp_in
from thinwire.distributed.sharded import ShardedGradients, compress_fsdp
from thinwire.distributed.step_hooks import synchronize
from thinwire.distributed.synchronizer import Synchronizer
from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.integrations.islands import is_sharded, replicas_beside
from thinwire.methods import Method, parse_method
from thinwire.worker import needs_server


class Attachment:
    """A method at work on a framework's model and its optimizers.

    Frameworks save the model and the optimizers of process 0. That is not enough to go on from: residuals are each
    process's own, and between two exchanges of a method with local steps so are parameters and the optimizer's state.
    So each process adds a file of its own to the framework's checkpoint.

    Args:
        model: wrapped in DDP, or sharded by FSDP2 within each replica, to compress its gradients; else every optimizer
            exchanges the parameters that it has.
        optimizers: torch's own, without a framework's wrapper.
        method: as given by :func:`parsed`.
        seed: the same on every process; addresses the method's randomness.
        scaler: of the loss, under mixed precision.
        warn_if_slower: as that of :func:`thinwire.compress_ddp`; a sharded model's links are not measured.

    Raises:
        ConfigError: the method does not fit the model, or a sharded model has no replicas.
    """

    def __init__(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], method: Method, seed: int,
        scaler: GradScaler | None = None, warn_if_slower: bool = True,
    ) -> None:  # fmt: skip
        self._shown = contextlib.ExitStack()
        self._is_shown = False
        self.handles: list[Synchronizer | CompressedGradients | ShardedGradients]
        self._parts: dict[str, Stateful]
        self._elsewhere: list[nn.Module] = []
        """A sharded model, of which each framework saves every shard once."""
        if any(isinstance(module, DistributedDataParallel) for module in model.modules()):
            wrapped = ddp_in(model)  # frameworks may compile it
            self.model: nn.Module = wrapped.module
            hook = compress_ddp(wrapped, method, scaler=scaler, seed=seed, warn_if_slower=warn_if_slower)
            self.handles = [hook]
            # Parameters and the optimizers' states are everyone's, and the framework saves them.
            self._parts = {"model": self.model, "thinwire": hook}
        elif is_sharded(model):
            self.model = model
            replicas = compress_fsdp(model, method, mesh=replicas_beside(model), scaler=scaler, seed=seed)
            self.handles = [replicas]
            self._parts, self._elsewhere = {"thinwire": replicas}, [model]
        else:
            self.model = model
            self.handles, self._parts = [], {"model": model}
            with contextlib.ExitStack() as undo:  # what cannot begin leaves nothing behind
                undo.callback(self.close)
                for number, optimizer in enumerate(optimizers):
                    # Two vectors, two seeds; what one optimizer draws is as it was without a second one.
                    handle = synchronize(optimizer, model, method, seed=seed + number)
                    self.handles.append(handle)
                    suffix = f" {number + 1}" if number else ""
                    self._parts |= {f"optimizer{suffix}": optimizer, f"thinwire{suffix}": handle}
                undo.pop_all()

    @property
    def message_bytes(self) -> int:
        """Bytes this process handed to the exchange so far, encoded; they are saved and restored too."""
        return sum(handle.message_bytes for handle in self.handles)

    def show_shared(self) -> None:
        """Let the model hold the parameters that all processes have in common, until :meth:`show_own`."""
        if not self._is_shown:
            self._enter_shared(self._shown)
            self._is_shown = True

    def show_own(self) -> None:
        """Let the model hold this process's own parameters again, to train them."""
        self._shown.close()
        self._is_shown = False

    def shared_state(self) -> dict[str, Any]:
        """The model's ``state_dict`` with the parameters that all processes have in common: what to publish."""
        if not any(isinstance(handle, Synchronizer) for handle in self.handles):
            return self.model.state_dict()
        with contextlib.ExitStack() as shown:
            self._enter_shared(shown)
            return {name: value.clone() for name, value in self.model.state_dict().items()}

    def save(self, folder: StrPath, step: int, *, keep: int = 1) -> None:
        """Write this process's file; all processes call it. What was saved there before gives way once this is whole.

        Args:
            folder: of this checkpoint alone.
            step: that of the framework's checkpoint.
            keep: 2 where the framework writes its own part later, which until then is that of the save before.

        Raises:
            ConfigError: some process could not write.
            NumericsError: some process's model is not finite.
        """
        self.show_own()
        checkpoints = Checkpoints(folder, self._parts, keep=keep, elsewhere=self._elsewhere)
        try:
            checkpoints.save(step, replaces=True)
        finally:
            checkpoints.close()

    def load(self, folder: StrPath, step: int | None = None) -> None:
        """Read this process's file, or, if there were more or fewer processes, what this one needs of theirs.

        Args:
            folder: as given to :meth:`save`.
            step: that of the framework's checkpoint, if it knows.

        Raises:
            ConfigError: there is no complete checkpoint, it is damaged, or of another step, method or model.
        """
        checkpoints = Checkpoints(folder, self._parts, elsewhere=self._elsewhere)
        found = checkpoints.steps()
        if not found or step not in (None, *found):
            of_what = (
                f"state of step {step}, only of step {', '.join(map(str, found))}"
                if found
                else "complete state of thinwire"
            )
            raise ConfigError(
                f"{folder} has no {of_what}: the run was ended while it saved, or saved without thinwire; "
                "resume from the checkpoint before"
            )
        checkpoints.load(step)

    def close(self) -> None:
        """Detach; call it before the process group is destroyed."""
        self.show_own()
        for handle in self.handles:
            handle.close()

    def flush(self) -> None:
        """Exchange what was done since the last exchange, at the end of training; all processes call it."""
        self.show_own()
        for handle in self.handles:
            if isinstance(handle, Synchronizer):
                handle.flush()

    def keep_shared(self) -> None:
        """Leave the parameters that all processes have in common in the model for good: training is over."""
        self.show_own()
        for handle in self.handles:
            if isinstance(handle, Synchronizer):
                handle.keep_shared()

    def _enter_shared(self, shown: contextlib.ExitStack) -> None:
        for handle in self.handles:
            if isinstance(handle, Synchronizer):
                shown.enter_context(handle.shared_model())


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
