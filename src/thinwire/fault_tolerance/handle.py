"""What :func:`thinwire.fault_tolerant` returns: hooks of an optimizer's step among participants that come and go."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.distributed.closures import Changed, closure_called
from thinwire.distributed.optimizer_hooks import OptimizerHooks
from thinwire.distributed.shared_model import keep_shared, shared_model
from thinwire.fault_tolerance.session import Participation, Session
from thinwire.worker import Worker


class FaultTolerant:
    """Lets ``optimizer.step()`` also exchange; made by :func:`thinwire.fault_tolerant`.

    As a context manager it flushes at the end, stays until the others have come to theirs, and closes; an error that
    ends the block ends this participant alone.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, worker: Worker, session: Session, clip_grad_norm: float | None
    ) -> None:  # fmt: skip
        self.optimizer = optimizer
        self.worker = worker
        self.session = session
        self._clip_grad_norm = clip_grad_norm
        self._has_failed = False
        self._hooks = OptimizerHooks(optimizer, self._before, self._after)

    @property
    def model(self) -> nn.Module:
        """The replica of this participant."""
        return self.worker.model

    @property
    def num_steps(self) -> int:
        """Steps of the training so far: what a participant that comes back finds, and what a loop counts by."""
        return self.worker.num_steps

    @property
    def participation(self) -> Participation:
        """Exchanges that counted, attempts that failed, and who is in the quorum."""
        return self.session.participation

    @property
    def message_bytes(self) -> int:
        """Bytes that this participant handed to exchanges that counted, encoded."""
        return self.worker.message_bytes

    @property
    def bytes_sent(self) -> int:
        """Bytes that left on this participant's link for exchanges, also for attempts that failed."""
        return self.session.traffic.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes that came in, as :attr:`bytes_sent`."""
        return self.session.traffic.bytes_received

    def shared_parameters(self) -> dict[str, Tensor]:
        """The parameters that all have in common, by name: evaluate and publish these."""
        return self.worker.shared_parameters()

    @contextmanager
    def shared_model(self) -> Iterator[nn.Module]:
        """Inside the block the model holds :meth:`shared_parameters`, to be evaluated or saved; after it its own."""
        with shared_model(self.worker) as model:
            yield model

    def keep_shared(self) -> None:
        """Leave :meth:`shared_parameters` in the model for good: training is over."""
        keep_shared(self.worker)

    def flush(self) -> None:
        """Exchange what was done since the last exchange, at the end of training; every participant calls it.

        Raises:
            NumericsError: NaN or inf in the model of some participant.
            WorkerError: no quorum for too long: the others have ended, or never come.
        """
        self.worker.exchanged.end_waits()
        while self.worker.num_unshared_steps:
            self.session.exchange(is_due=True, at_once=True)
        self.worker.accept_values()

    def state_dict(self) -> dict[str, Any]:
        """What this participant remembers, for a checkpoint of its own beside those of model and optimizer."""
        return self.session.participant.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; load the states of model and optimizer beside it.

        If others have gone on meanwhile, this participant stands where they do after the next exchange.

        Raises:
            ConfigError: it is of another participant, method, seed or model.
        """
        self.session.participant.load_state_dict(saved)
        self.session.forget()

    def close(self) -> None:
        """Leave the others, and the optimizer as it was found.

        Warns:
            UserWarning: local steps were made since the last exchange; :meth:`flush` would have shared them.
        """
        if not self._hooks.are_there:
            return
        if self.worker.num_unshared_steps and not self._has_failed:
            warnings.warn(
                f"{self.worker.num_unshared_steps} local steps came after the last exchange: they stay in this model "
                "alone. Call flush() on every participant when training is over",
                stacklevel=2,
            )
        self._hooks.remove()
        self.session.close()

    def __enter__(self) -> "FaultTolerant":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush, wait for the others and close; after an error the others hear of it, and go on."""
        try:
            if error is None and self._hooks.are_there:
                self.flush()
                self.session.finish()
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._has_failed = error is not None
            if error is not None and self._hooks.are_there:
                self._hooks.remove()
                self.session.abort(error)
            self.close()

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        """Before the optimizer's own step: gradients are exchanged, or hidden if there is to be no step."""
        rounds = self.session.participant.rounds
        changed = closure_called(self.optimizer, args, kwargs) if rounds.precedes_step else None
        is_scaled, overflow = self._hooks.gradients.take_scale()
        rounds.begin_step()
        steps = self.session.exchange(is_due=True, skips=is_scaled) if rounds.precedes_step else not overflow
        if not steps:
            self._hooks.gradients.hide()
        elif self._clip_grad_norm is not None:
            self._hooks.gradients.clip(self._clip_grad_norm)
        return changed

    def _after(self) -> None:
        if self.session.participant.rounds.count_step():
            self.session.exchange(is_due=True)
