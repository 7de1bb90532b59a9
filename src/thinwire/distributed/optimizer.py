"""One line in a training script."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from thinwire.distributed.transport import Transport
from thinwire.methods import Method, parse_method
from thinwire.network import Traffic
from thinwire.worker import Worker


class DistributedOptimizer:
    """Wraps an optimizer so that :meth:`step` also exchanges what the method says with the other processes.

    The processes run under ``torchrun`` with an initialised process group. Parameters and buffers start as those
    of rank 0; that first broadcast is not in the byte counts. A learning-rate scheduler is made of the wrapped
    optimizer: ``StepLR(optimizer.optimizer, ...)``.

    Args:
        optimizer: any ``torch.optim`` optimizer over parameters of ``model``.
        model: the replica of this process, not wrapped in DDP.
        method: a method string such as ``"qsparse:density=1%,every=8"``, or a method.
        group: the processes that take part; all by default.
        seed: the same on every process; addresses the method's randomness.

    Raises:
        ConfigError: no process group, an unknown method, or one that does not fit the model.

    Example::

        dist.init_process_group("gloo")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = thinwire.DistributedOptimizer(optimizer, model, "signtopk:density=1%,every=8")
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss_of(model(inputs), targets).backward()
            optimizer.step()
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        model: nn.Module,
        method: str | Method,
        *,
        group: dist.ProcessGroup | None = None,
        seed: int = 0,
    ) -> None:
        product = parse_method(method) if isinstance(method, str) else method
        self.transport = Transport(group)
        with torch.no_grad():
            self.transport.broadcast_([*model.parameters(), *model.buffers()])
        self.optimizer = optimizer
        self.worker = Worker(product, model, optimizer, rank=self.transport.rank, size=self.transport.size, seed=seed)

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One training step with the gradients in place (or made by ``closure``, whose loss is returned)."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.transport.run(self.worker.step())
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the wrapped optimizer."""
        self.optimizer.zero_grad(set_to_none)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the wrapped optimizer."""
        return self.optimizer.param_groups

    def shared_parameters(self) -> dict[str, Tensor]:
        """The parameters that all processes have in common, by name: evaluate and publish these.

        Between two exchanges of a method with local steps the model itself has drifted from them.
        """
        return self.worker.shared_parameters()

    @property
    def message_bytes(self) -> int:
        """Bytes this worker handed to the exchange so far, encoded."""
        return self.worker.message_bytes

    @property
    def bytes_sent(self) -> int:
        """Bytes that left on this worker's link so far."""
        return self.transport.traffic.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes that came in on this worker's link so far."""
        return self.transport.traffic.bytes_received

    def state_dict(self) -> dict[str, Any]:
        """State of the wrapped optimizer and of this rank's worker; one file a rank."""
        link = self.transport.traffic
        return {
            "optimizer": self.optimizer.state_dict(),
            "worker": self.worker.state_dict(),
            "link": {"bytes_sent": link.bytes_sent, "bytes_received": link.bytes_received},
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; load the model's own state separately.

        Raises:
            ConfigError: the state is of another rank, number of workers, seed, method or model.
        """
        self.worker.load_state_dict(saved["worker"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.transport.traffic = Traffic(saved["link"]["bytes_sent"], saved["link"]["bytes_received"])

    def close(self) -> None:
        """End the communication thread; call it before ``destroy_process_group``."""
        self.transport.close()
