"""Workers kept in step by an optimizer's own hooks: the training loop stays as it was."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from thinwire.distributed.averaged import check_not_averaged
from thinwire.distributed.closures import Once
from thinwire.distributed.guard import ReplicaGuard
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.replicas import guard_worker
from thinwire.distributed.starting_point import broadcast_parameters, common_terms
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.methods import GradientAveraging, Method, ModelAveraging, parse_method
from thinwire.network import Traffic
from thinwire.worker import Worker, needs_server
from thinwire.worker.layer_report import LayerReport
from thinwire.worker.parameters import held_parameters, local_part
from thinwire.worker.resize import of_known
from thinwire.worker.step_times import StepClock, StepTimes, median_times

Group = dist.ProcessGroup | DeviceMesh | None
"""Processes that exchange with each other: a process group, a mesh of one dimension, or all."""


class Synchronizer:
    """Lets ``optimizer.step()`` also exchange what a method says; made by :func:`synchronize`.

    As a context manager it is closed at the end, and the optimizer is then as it was.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, model: nn.Module, method: Method, group: Group, seed: int,
        guard: ReplicaGuard | None = None, layer_report: LayerReport | None = None, profile: bool = False,
        links: LinkOptions | None = None, clip_grad_norm: float | None = None,
    ) -> None:  # fmt: skip
        process_group = process_group_of(group)
        check_not_averaged(model, process_group)
        _check_clipping(clip_grad_norm)
        _check_optimizer(optimizer, method)
        terms = common_terms("synchronize", method, seed, model, {"guard": guard, "clip_grad_norm": clip_grad_norm})
        self.transport = Transport(process_group, links, terms)
        served = needs_server(method)
        with ExitStack() as undo:  # what cannot begin leaves nothing behind
            undo.callback(self.transport.close)
            if served and self.transport.rank == self.transport.size - 1:
                raise ConfigError(
                    f"{method} needs a server, which is the last process: let it call thinwire.serve(model, method, "
                    "num_steps=...) instead, and start one process more than there are workers"
                )
            broadcast_parameters(self.transport, model)
            size = self.transport.size - served
            self.optimizer = optimizer
            self.worker = Worker(method, model, optimizer, rank=self.transport.rank, size=size, seed=seed)
            self.worker.agreement.has_begun = True  # compared above
            # Who asks for the values of process 0 wants no error where one process has written others.
            self.worker.agreement.notices_writes = guard is None or guard.on_difference == "stop"
            self.worker.watcher = layer_report
            self._guarded = None if guard is None else guard_worker(guard, self.transport, self.worker)
            undo.pop_all()
        self._clock = self.transport.clock = StepClock() if profile else None
        self.worker.exchanged.measure(self._clock)
        self._clip_grad_norm = clip_grad_norm
        self._hidden: list[tuple[Tensor, Tensor | None]] = []
        self._has_failed = False
        self._knew_scales: object = getattr(optimizer, _SCALES, _ABSENT)
        # A GradScaler then leaves it to the step what becomes of gradients that are not finite; without this it would
        # skip the step, and with it the exchange that the other workers wait for.
        setattr(optimizer, _SCALES, True)
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    @property
    def model(self) -> nn.Module:
        """The replica of this process."""
        return self.worker.model

    @property
    def times(self) -> StepTimes:
        """Where the seconds of a step went: medians over the last ones.

        Raises:
            ConfigError: ``profile`` was not asked for.
        """
        return median_times(self._clock)

    @property
    def steps_together(self) -> bool:
        """Whether all processes of the group make the same steps; beside a server each worker makes its own."""
        return self.worker.size == self.transport.size

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

    @property
    def is_paused(self) -> bool:
        """Whether the server of an asynchronous method has had this worker's last message."""
        return self.worker.is_paused

    def shared_parameters(self) -> dict[str, Tensor]:
        """The parameters that all processes have in common, by name: evaluate and publish these.

        Between two exchanges of a method with local steps the model itself has drifted from them; after the last
        step, :meth:`flush` first.
        """
        return self.worker.shared_parameters()

    def flush(self) -> None:
        """Exchange what was done since the last exchange, at the end of training; every process calls it.

        Without it the local steps after the last exchange are in no common model. Leaving the ``with`` block does it.
        Under gradient averaging, and beside a server, there is nothing to do.

        Raises:
            NumericsError: NaN or inf in the model of some worker.
            WorkerError: a peer is gone.
        """
        self.transport.run(self.worker.finish())

    @contextmanager
    def shared_model(self) -> Iterator[nn.Module]:
        """Inside the block the model holds :meth:`shared_parameters`, to be evaluated or saved; after it its own.

        Warns:
            UserWarning: there was no exchange yet, so that these are the initial parameters.
        """
        if not self.worker.num_exchanges and self.worker.num_unshared_steps:
            self._warn_unshared("what all have in common is the model before training")
        own = {name: local_part(param.detach()).clone() for name, param in self.worker.parameters().items()}
        try:
            self.keep_shared()
            yield self.model
        finally:
            self._write(own)

    def keep_shared(self) -> None:
        """Leave :meth:`shared_parameters` in the model for good: training is over."""
        self._write({name: param.clone() for name, param in self.shared_parameters().items()})

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        named = self.worker.parameters()
        torch._foreach_copy_([local_part(named[name]) for name in values], list(values.values()))
        self.worker.accept_values()

    def state_dict(self) -> dict[str, Any]:
        """What this rank's worker remembers, and its counts; one file a rank, beside those of model and optimizer."""
        link = self.transport.traffic
        return {
            "worker": self.worker.state_dict(),
            "link": {"bytes_sent": link.bytes_sent, "bytes_received": link.bytes_received},
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; load the states of model and optimizer beside it.

        Raises:
            ConfigError: the state is of another rank, number of workers, seed, method or model.
        """
        self.worker.load_state_dict(saved["worker"])
        self.transport.traffic = Traffic(saved["link"]["bytes_sent"], saved["link"]["bytes_received"])

    def exchanged(self) -> dict[str, int]:
        """``id()`` of every parameter that takes part, by its name: a checkpoint finds their model by it."""
        return {name: id(param) for name, param in held_parameters(self.model, self.optimizer).items()}

    def load_resized(self, saved: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the states of another number of workers; see :meth:`thinwire.worker.Worker.load_resized`."""
        trained = of_known(held_parameters(self.model, self.optimizer), models)
        self.worker.load_resized([each["worker"] for each in saved], trained)
        link = saved[self.worker.rank]["link"] if self.worker.rank < len(saved) else {}
        self.transport.traffic = Traffic(**link)

    def close(self) -> None:
        """Leave the optimizer as it was found; call it before ``destroy_process_group``.

        Warns:
            UserWarning: local steps were made since the last exchange; :meth:`flush` would have shared them.
        """
        if self._handles and self.worker.num_unshared_steps and self.steps_together and not self._has_failed:
            self._warn_unshared("they stay in this process's model alone")
        for handle in self._handles:
            handle.remove()
        if self._handles:
            if self._knew_scales is _ABSENT:
                delattr(self.optimizer, _SCALES)
            else:
                setattr(self.optimizer, _SCALES, self._knew_scales)
        self._handles = []
        self.transport.close()

    def __enter__(self) -> "Synchronizer":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush and close; the other processes hear of an error that ends the block, and do not wait."""
        self._has_failed = error is not None
        try:
            if error is None and self._handles:
                self.flush()
        except BaseException as raised:
            self._has_failed = True
            self.transport.abort_for(raised)
            raise
        finally:
            if error is not None:
                self.transport.abort_for(error)
            self.close()

    def _warn_unshared(self, what: str) -> None:
        count = self.worker.num_unshared_steps
        warnings.warn(
            f"{count} local step{'s' if count > 1 else ''} came after the last exchange: "
            f"{what}. Call flush() on every process when training is over",
            stacklevel=3,
        )

    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before the optimizer's own step: gradients are exchanged, or hidden if there is to be no step."""
        changed: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is not None and isinstance(self.worker.method, GradientAveraging):
            # It makes the gradients, so it is called before they are exchanged, and not again.
            with torch.enable_grad():
                loss = closure()
            changed = ((args[0], Once(loss, type(optimizer).__name__)), {})
        is_scaled, overflow = self._take_scale()
        steps = self.transport.run(self.worker.before_step(skips=is_scaled))
        if not steps or (overflow and isinstance(self.worker.method, ModelAveraging)):
            self._hide_gradients()
        elif self._clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(
                [param for param, grad in self._gradients() if grad is not None], self._clip_grad_norm
            )
        return changed

    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for param, grad in self._hidden:
            param.grad = grad
        self._hidden = []
        self.transport.run(self.worker.after_step())
        if self._guarded is not None:
            self._guarded.after_step(self.worker.num_steps)
            self.worker.accept_values()
        if self._clock is not None:
            self._clock.end_step()

    def _take_scale(self) -> tuple[bool, bool]:
        """Whether a GradScaler makes this step, and whether it found inf or NaN here; gradients are unscaled then."""
        found: Tensor | None = getattr(self.optimizer, "found_inf", None)
        if found is None:
            return False, False
        scale: Tensor | None = getattr(self.optimizer, "grad_scale", None)
        if scale is not None:  # the script did not call unscale_
            torch._foreach_div_([grad for _, grad in self._gradients() if grad is not None], scale)
        # What we have done the optimizer need not do; the scaler deletes both after the step.
        setattr(self.optimizer, "grad_scale", None)  # noqa: B010
        setattr(self.optimizer, "found_inf", None)  # noqa: B010
        return True, bool(found)

    def _hide_gradients(self) -> None:
        """An optimizer steps no parameter without gradient, so this step leaves parameters and its state alone."""
        self._hidden = self._gradients()
        for param, _ in self._hidden:
            param.grad = None

    def _gradients(self) -> list[tuple[Tensor, Tensor | None]]:
        return [(param, param.grad) for group in self.optimizer.param_groups for param in group["params"]]


_SCALES = "_step_supports_amp_scaling"
"""The attribute by which a GradScaler knows an optimizer that looks at ``found_inf`` and ``grad_scale`` itself."""

_ABSENT = object()


def synchronize(
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
) -> Synchronizer:
    """From now on ``optimizer.step()`` also exchanges what ``method`` says with the other processes.

    The processes run under ``torchrun`` with an initialised process group, which introduces them to each other; what
    they exchange travels over links of their own. Parameters and buffers start as those of rank 0: where they differ
    they are sent, outside of the byte counts. The optimizer remains the script's own: schedulers, a
    ``GradScaler``, closures and wrappers of other libraries work with it as before. A step in which a ``GradScaler``
    finds inf or NaN is skipped by every worker if gradients are averaged, with memories and counters as they were;
    under model averaging it is a local step that moves nothing, and workers stay in step.

    Args:
        optimizer: any ``torch.optim`` optimizer over parameters of ``model``.
        model: the replica of this process; it may be compiled, of bf16, or sharded (FSDP2) within an island.
        method: a method string such as ``"qsparse:density=1%,every=8"``, or a method.
        group: the processes that exchange; all by default. With islands (nodes) that average within themselves, by
            DDP or FSDP2, the processes of equal place in every island: the mesh's replicate dimension.
        seed: the same on every process; addresses the method's randomness.
        guard: compare what the processes have in common every now and then.
        layer_report: sampled exchanges are reported tensor by tensor.
        profile: whether :attr:`Synchronizer.times` is measured.
        links: how the processes reach each other, and how long they wait.
        clip_grad_norm: the largest norm of the gradient that the optimizer gets. Under gradient averaging it is that
            of the mean, as with DDP; a script that clips before ``step()`` clips each worker's own gradient. Under
            model averaging, where each worker steps on its own, it is that of the worker's.

    Raises:
        ConfigError: no process group, an unknown method, one that does not fit the model or the guard, or processes
            that do not agree on method, seed, model or guard.
        WorkerError: processes cannot reach each other.

    Example::

        dist.init_process_group()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with thinwire.synchronize(optimizer, model, "signtopk:density=1%,every=8"):
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss_of(model(inputs), targets).backward()
                optimizer.step()
    """
    product = parse_method(method) if isinstance(method, str) else method
    return Synchronizer(optimizer, model, product, group, seed, guard, layer_report, profile, links, clip_grad_norm)


def process_group_of(group: Group) -> dist.ProcessGroup | None:
    """The process group of a mesh of one dimension; a process group as it is.

    Raises:
        ConfigError: a mesh of several dimensions.
    """
    if not isinstance(group, DeviceMesh):
        return group
    if group.ndim != 1:
        raise ConfigError(
            f"a mesh of {group.ndim} dimensions {group.mesh_dim_names} was given as group; give the one dimension over "
            'which to exchange, such as mesh["replicate"]'
        )
    return group.get_group()


def _check_clipping(norm: float | None) -> None:
    if norm is not None and not norm > 0.0:
        raise ConfigError(f"clip_grad_norm = {norm!r} was given; give the largest norm, above 0, or leave it out")


def _check_optimizer(optimizer: torch.optim.Optimizer, method: Method) -> None:
    if isinstance(optimizer, torch.optim.LBFGS) and isinstance(method, GradientAveraging):
        raise ConfigError(
            "LBFGS evaluates the loss several times a step, and each would need an exchange; take a method that "
            "averages models, or another optimizer"
        )
    hooks = optimizer._optimizer_step_pre_hooks.values()
    if any(isinstance(getattr(hook, "__self__", None), Synchronizer) for hook in hooks):
        raise ConfigError("this optimizer is synchronized already; close the first synchronizer")
