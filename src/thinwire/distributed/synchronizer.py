"""Workers kept in step by an optimizer's own hooks: the training loop stays as it was."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from thinwire.distributed.averaged import check_not_averaged
from thinwire.distributed.closures import Changed, check_closures, closure_called
from thinwire.distributed.handle_options import HandleOptions
from thinwire.distributed.optimizer_hooks import OptimizerHooks, check_unattached
from thinwire.distributed.replicas import guard_worker
from thinwire.distributed.shared_model import keep_shared, shared_model
from thinwire.distributed.starting_point import broadcast_parameters, common_terms
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.methods import GradientAveraging, Method, needs_gradients
from thinwire.network import Traffic
from thinwire.worker import Worker, needs_server
from thinwire.worker.parameters import held_parameters, model_device
from thinwire.worker.resize import of_known
from thinwire.worker.step_times import StepClock, StepTimes, median_times


class Synchronizer:
    """Lets ``optimizer.step()`` also exchange what a method says; made by :func:`thinwire.synchronize`.

    As a context manager it is closed at the end, and the optimizer is then as it was.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, model: nn.Module, method: Method, group: dist.ProcessGroup | None,
        clip_grad_norm: float | None, options: HandleOptions,
    ) -> None:  # fmt: skip
        guard, seed = options.guard, options.seed
        check_not_averaged(model, group)
        if clip_grad_norm is not None and not clip_grad_norm > 0.0:
            raise ConfigError(
                f"clip_grad_norm = {clip_grad_norm!r} was given; give the largest norm, above 0, or leave it out"
            )
        check_closures(optimizer, method)
        check_unattached(optimizer)
        terms = common_terms("synchronize", method, seed, model, {"guard": guard, "clip_grad_norm": clip_grad_norm})
        self.transport = Transport(group, options.links, terms, device=model_device(model.parameters()))
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
            self.worker.runner.watcher = options.layer_report
            self._guarded = None if guard is None else guard_worker(guard, self.transport, self.worker)
            undo.pop_all()
        self._clock = self.transport.clock = StepClock() if options.profile else None
        self.worker.exchanged.drive(self._clock, sums_stay=self.transport.sums_stay)
        self._clip_grad_norm = clip_grad_norm
        self._has_failed = False
        self._hooks = OptimizerHooks(optimizer, self._before, self._after)

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
        with shared_model(self.worker) as model:
            yield model

    def keep_shared(self) -> None:
        """Leave :meth:`shared_parameters` in the model for good: training is over."""
        keep_shared(self.worker)

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
        is_open = self._hooks.are_there
        if is_open and self.worker.num_unshared_steps and self.steps_together and not self._has_failed:
            self._warn_unshared("they stay in this process's model alone")
        self._hooks.remove()
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
            if error is None and self._hooks.are_there:
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

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        """Before the optimizer's own step: gradients are exchanged, or hidden if there is to be no step."""
        averages_gradients = isinstance(self.worker.method, GradientAveraging)
        changed = closure_called(self.optimizer, args, kwargs) if needs_gradients(self.worker.method) else None
        is_scaled, overflow = self._hooks.gradients.take_scale()
        steps = self.transport.run(self.worker.before_step(skips=is_scaled))
        if not steps or (overflow and not averages_gradients):
            self._hooks.gradients.hide()
        elif self._clip_grad_norm is not None:
            self._hooks.gradients.clip(self._clip_grad_norm)
        return changed

    def _after(self) -> None:
        self.transport.run(self.worker.after_step())
        if self._guarded is not None:
            self._guarded.after_step(self.worker.num_steps)
            self.worker.accept_values()
        if self._clock is not None:
            self._clock.end_step()
