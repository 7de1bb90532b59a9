"""An optimizer that also exchanges, for scripts that would rather wrap than attach."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.distributed.guard import ReplicaGuard
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.step_hooks import synchronize
from thinwire.distributed.synchronizer import Synchronizer
from thinwire.distributed.transport import Group, Transport
from thinwire.errors import ConfigError
from thinwire.methods import Method
from thinwire.worker import LayerReport, Worker


class DistributedOptimizer:
    """:func:`thinwire.synchronize` in the form of a wrapper: its :meth:`step` is the wrapped optimizer's.

    A learning-rate scheduler is made of the wrapped optimizer: ``StepLR(optimizer.optimizer, ...)``.

    Args:
        optimizer: any ``torch.optim`` optimizer over parameters of ``model``.
        model: the replica of this process, not wrapped in DDP.
        method: a method string such as ``"qsparse:density=1%,every=8"``, or a method.
        group: the processes that take part; all by default.
        seed: the same on every process; addresses the method's randomness.
        guard: see :func:`thinwire.synchronize`.
        layer_report: see there.
        profile: see there; ``sync.times`` has the times.
        links: see there.
        clip_grad_norm: see there.

    Raises:
        ConfigError: as :func:`thinwire.synchronize`.

    Example::

        dist.init_process_group()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = thinwire.DistributedOptimizer(optimizer, model, "signtopk:density=1%,every=8")
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss_of(model(inputs), targets).backward()
            optimizer.step()
    """

    _step_supports_amp_scaling = True

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        model: nn.Module,
        method: str | Method,
        *,
        group: Group = None,
        seed: int = 0,
        guard: ReplicaGuard | None = None,
        layer_report: LayerReport | None = None,
        profile: bool = False,
        links: LinkOptions | None = None,
        clip_grad_norm: float | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.sync: Synchronizer = synchronize(
            optimizer, model, method, group=group, seed=seed, guard=guard, layer_report=layer_report,
            profile=profile, links=links,
            clip_grad_norm=clip_grad_norm,
        )  # fmt: skip

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One training step with the gradients in place (or made by ``closure``, whose loss is returned)."""
        # Around its step a GradScaler sets these two, and then deletes them; the wrapped optimizer is what reads them.
        lent = {name: value for name, value in vars(self).items() if name in ("grad_scale", "found_inf")}
        for name, value in lent.items():
            setattr(self.optimizer, name, value)
        try:
            step: Any = self.optimizer.step  # typed as if losses were floats
            loss: Tensor | None = step() if closure is None else step(closure)
            return loss
        finally:
            for name in lent:
                delattr(self.optimizer, name)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the wrapped optimizer."""
        self.optimizer.zero_grad(set_to_none)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the wrapped optimizer."""
        return self.optimizer.param_groups

    @property
    def worker(self) -> Worker:
        """The participant, with its memory and counters."""
        return self.sync.worker

    def shared_parameters(self) -> dict[str, Tensor]:
        """See :meth:`thinwire.distributed.Synchronizer.shared_parameters`."""
        return self.sync.shared_parameters()

    @property
    def message_bytes(self) -> int:
        """Bytes this worker handed to the exchange so far, encoded."""
        return self.sync.message_bytes

    @property
    def bytes_sent(self) -> int:
        """Bytes that left on this worker's link so far."""
        return self.sync.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes that came in on this worker's link so far."""
        return self.sync.bytes_received

    def state_dict(self) -> dict[str, Any]:
        """State of the wrapped optimizer and of this rank's worker; one file a rank."""
        return {"optimizer": self.optimizer.state_dict(), **self.sync.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; load the model's own state separately.

        Raises:
            ConfigError: the state is of another rank, number of workers, seed, method or model; nothing is changed.
            ValueError: of the wrapped optimizer, if it is of other parameters; nothing is changed.
        """
        before = self.optimizer.state_dict()
        self.optimizer.load_state_dict(saved["optimizer"])
        try:
            self.sync.load_state_dict(saved)
        except ConfigError:
            self.optimizer.load_state_dict(before)
            raise

    def exchanged(self) -> dict[str, int]:
        """``id()`` of every parameter that takes part, by its name: a checkpoint finds their model by it."""
        return self.sync.exchanged()

    def load_resized(self, saved: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the states of another number of workers; see :meth:`thinwire.worker.Worker.load_resized`."""
        self.sync.load_resized(saved, models)
        self.optimizer.load_state_dict(saved[self.worker.rank % len(saved)]["optimizer"])

    @property
    def steps_together(self) -> bool:
        """See :attr:`thinwire.distributed.Synchronizer.steps_together`."""
        return self.sync.steps_together

    @property
    def transport(self) -> Transport:
        """How this process talks to the others."""
        return self.sync.transport

    def flush(self) -> None:
        """See :meth:`thinwire.distributed.Synchronizer.flush`."""
        self.sync.flush()

    def close(self) -> None:
        """End the links; :meth:`flush` first."""
        self.sync.close()
