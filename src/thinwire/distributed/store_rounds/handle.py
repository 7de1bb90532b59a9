"""Workers kept in step through a store, by an optimizer's own hooks."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.distributed.averaged import check_not_averaged
from thinwire.distributed.optimizer_hooks import OptimizerHooks, check_unattached
from thinwire.distributed.own_state import take_own_state
from thinwire.distributed.shared_model import shared_model
from thinwire.distributed.store_rounds.beginning import check_beginning
from thinwire.distributed.store_rounds.driver import RoundDriver
from thinwire.distributed.store_rounds.journal import Journal
from thinwire.distributed.store_rounds.report import RoundReport
from thinwire.distributed.store_rounds.settings import Patience
from thinwire.distributed.store_rounds.station import Station
from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.network import Traffic
from thinwire.worker import Worker


class StoreSynchronizer:
    """Lets ``optimizer.step()`` also take part in rounds; made by :func:`thinwire.synchronize_by_store`.

    As a context manager it is closed at the end, and the optimizer is then as it was.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, worker: Worker, station: Station, patience: Patience,
        journal: Journal | None,
    ) -> None:  # fmt: skip
        check_not_averaged(worker.model, None)
        check_unattached(optimizer)
        self.optimizer, self.worker = optimizer, worker
        worker.agreement.has_begun = True  # compared through the store
        worker.agreement.notices_writes = False  # and nobody is told of them
        self._station, self._driver, self._journal = station, RoundDriver(worker, station, patience), journal
        self._has_begun, self._resumed, self._has_failed, self._at_once = False, False, False, False
        saved = None if journal is None else journal.read()
        if journal is not None and saved is not None:
            self._resume(saved, journal.path)
        self._hooks = OptimizerHooks(optimizer, self._before, self._after)

    @property
    def model(self) -> nn.Module:
        """The replica of this worker."""
        return self.worker.model

    @property
    def num_steps(self) -> int:
        """Steps that this worker has made; those of the others where it went on from a snapshot."""
        return self.worker.num_steps

    @property
    def num_rounds(self) -> int:
        """Rounds that are over, whether this worker's message counted or not."""
        return self.worker.num_exchanges

    @property
    def message_bytes(self) -> int:
        """Bytes of this worker's messages so far, encoded, without their seals."""
        return self._driver.message_bytes

    @property
    def bytes_sent(self) -> int:
        """Bytes of all objects that this worker has written so far."""
        return self._station.objects.traffic.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes of all objects that this worker has read so far."""
        return self._station.objects.traffic.bytes_received

    @property
    def participation(self) -> dict[int, float]:
        """In which share of the last rounds each worker's message counted, by rank."""
        return self._station.attendance.shares()

    @property
    def report(self) -> RoundReport:
        """What was left out and what was missed, as this worker saw it."""
        return self._station.report

    def shared_parameters(self) -> dict[str, Tensor]:
        """The parameters that all workers have in common after this round, by name: evaluate and publish these.

        Between two rounds the model itself has drifted from them; after the last step, :meth:`flush` first.
        """
        return self.worker.shared_parameters()

    @contextmanager
    def shared_model(self) -> Iterator[nn.Module]:
        """Inside the block the model holds :meth:`shared_parameters`, to be evaluated or saved; after it its own."""
        with shared_model(self.worker) as model:
            yield model

    def catch_up(self) -> int:
        """Go through the rounds that others have closed meanwhile; how many there were. Own work stays to be handed in.

        Raises:
            StoreError: as for a step.
        """
        self._finish_round()
        self._begin()
        before = self.num_rounds
        self._driver.catch_up(is_due=False)
        return self.num_rounds - before

    def flush(self) -> None:
        """Hand in what was done since the last round that counted this worker, at the end of training.

        Without it the local steps after that are in no common model. Leaving the ``with`` block does it. A worker whose
        message does not count this time warns of it: it may flush again, and others may :meth:`catch_up`.

        Raises:
            NumericsError: NaN or inf in this worker's model.
            StoreError: as for a step.

        Warns:
            UserWarning: what this worker did last is still in no common model.
        """
        self._finish_round()
        for _ in self.worker.channels:
            if not self.worker.num_unshared_steps:
                return
            self._exchange(at_once=True)
        if self.worker.num_unshared_steps:
            self._warn_unshared("its message came too late for the last round, or was left out. Call flush() again")

    def state_dict(self) -> dict[str, Any]:
        """What this worker remembers, and its counts; one file a worker, beside those of model and optimizer."""
        traffic, station = self._station.objects.traffic, self._station
        return {
            "worker": self.worker.state_dict(),
            "store": {
                "run": station.objects.run, "message_bytes": self.message_bytes,
                "bytes_sent": traffic.bytes_sent, "bytes_received": traffic.bytes_received,
                "attendance": station.attendance.state_dict(), "report": station.report.state_dict(),
            },
        }  # fmt: skip

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; load the states of model and optimizer beside it.

        Raises:
            ConfigError: the state is of another run, rank, number of workers, seed, method or model, or older than what
                the state file had.
        """
        store = saved["store"]
        if store["run"] != self._station.objects.run:
            raise ConfigError(f"the state is of the run {store['run']!r}, not of {self._station.objects.run!r}")
        before = saved["worker"]["counters"]["num_exchanges"]
        if self._resumed and before < self.worker.num_exchanges:
            raise ConfigError(
                f"the state is of round {before}, and this worker has gone on from its state file, to round "
                f"{self.worker.num_exchanges}; load model, optimizer and state before the handle is made, or leave the "
                "state out"
            )
        self.worker.load_state_dict(saved["worker"])
        self._station.objects.traffic = Traffic(store["bytes_sent"], store["bytes_received"])
        self._station.attendance.load_state_dict(store["attendance"])
        self._station.report.load_state_dict(store["report"])
        self._driver.message_bytes = store["message_bytes"]

    def close(self) -> None:
        """Leave the optimizer as it was found.

        Warns:
            UserWarning: local steps are in no common model; :meth:`flush` would have handed them in.
        """
        if self._hooks.are_there and self.worker.num_unshared_steps and not self._has_failed:
            self._warn_unshared("it stays in this worker's model alone. Call flush() when training is over")
        self._hooks.remove()

    def __enter__(self) -> "StoreSynchronizer":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush and close; after an error only close: the others wait for this worker no longer than for any other."""
        self._has_failed = error is not None
        try:
            if error is None and self._hooks.are_there:
                self.flush()
        except BaseException:
            self._has_failed = True
            raise
        finally:
            self.close()

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._finish_round()
        _, overflow = self._hooks.gradients.take_scale()
        self._driver.rounds.begin_step()
        if overflow:
            self._hooks.gradients.hide()

    def _after(self) -> None:
        if self._driver.rounds.count_step():
            self._exchange()

    def _exchange(self, *, at_once: bool = False) -> None:
        agreement = self.worker.agreement
        if agreement.has_news(list(agreement.trained.named)):
            raise ConfigError(
                "parameters were frozen, unfrozen, added or replaced, which workers over a store cannot tell each "
                "other; make such a change before the handle, and give the run another name after it"
            )
        self._begin()
        self._at_once = at_once
        self._driver.take_part(lambda: self._note(at_once), at_once=at_once)

    def _finish_round(self) -> None:
        """What an error or an interruption has left: the parameters are still those whose message was handed in."""
        if self._driver.is_unfinished:
            self._exchange(at_once=self._at_once)

    def _begin(self) -> None:
        if not self._has_begun:
            is_fresh = not self.worker.num_exchanges and not self._resumed
            check_beginning(self._station.objects, self.worker, is_fresh=is_fresh)
            self._has_begun = True

    def _note(self, at_once: bool) -> None:
        if self._journal is not None:
            self._journal.write(self.state_dict(), self.worker, at_once)

    def _resume(self, saved: Mapping[str, Any], path: StrPath) -> None:
        """Stand where this worker was when it last handed in a message, and see what became of it."""
        self.load_state_dict(saved["handle"])
        take_own_state(self.worker, saved, path)
        self._resumed = True
        self._exchange(at_once=saved["at_once"])

    def _warn_unshared(self, what: str) -> None:
        count = self.worker.num_unshared_steps
        warnings.warn(
            f"the work of worker {self.worker.rank} since {count} local step{'s' if count > 1 else ''} is in no common "
            f"model: {what}",
            stacklevel=3,
        )
