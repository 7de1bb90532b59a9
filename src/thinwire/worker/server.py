"""The process that holds the model of an asynchronous method."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.arrays import copy_of
from thinwire.errors import ConfigError, NumericsError
from thinwire.exchanges.asynchronous import AsynchronousServer, Control, write_answer
from thinwire.exchanges.reading import MessageReader
from thinwire.exchanges.recompression import max_relayed_num_bytes, relayed_kinds
from thinwire.kernels.flat.finite import is_finite
from thinwire.layout import Layout
from thinwire.methods import Method, ModelAveraging, ServerUpdate, check_method
from thinwire.payloads import Dense, Payload
from thinwire.steps import Steps, as_it_is, receive_any, send
from thinwire.worker.exchange_runner import check_same
from thinwire.worker.keeper import by_parameter


@dataclass(slots=True)
class Turn:
    """What goes on between two pauses of the workers.

    Args:
        until: after how many messages in all the workers are told to pause.
        leaves_at: after how many of its own a worker is, by rank; of a worker that is not there, after ``until``.
        active: workers that will still send something.
    """

    until: float
    leaves_at: dict[int, float]
    active: set[int]
    waiting: dict[int, Payload | None] = field(default_factory=dict)
    offender: Payload | None = None

    def check(self) -> None:
        """Raise :class:`NumericsError` if a worker's message was not finite, once all have been told."""
        if self.offender is not None and not self.active:
            raise NumericsError(
                "NaN or inf in the model of at least one worker; its message was not merged. Lower the learning rate, "
                "clip gradients, or look for bad input data"
            )


class Server:
    """Merges messages in the order in which they come and answers each with its model.

    It takes part with rank ``size``, beside workers 0 to ``size - 1``, and does no training.

    Args:
        method: with an :class:`AsynchronousServer` as exchange.
        model: the common initial parameters.
        size: number of workers.

    Raises:
        ConfigError: another method, or one that does not fit the model.
    """

    def __init__(self, method: Method, model: nn.Module, *, size: int) -> None:
        if not needs_server(method):
            raise ConfigError(f"{method} has no server; give a method whose exchange is an AsynchronousServer")
        assert isinstance(method, ModelAveraging)
        assert isinstance(method.update, ServerUpdate)
        assert isinstance(method.exchange, AsynchronousServer)
        self.rank = self.size = size
        self.method = method
        self._update = method.update
        self._bound = method.exchange.max_staleness
        named = {name: param for name, param in model.named_parameters() if param.requires_grad}
        self.layout = Layout.of(named)
        segments = check_method(method, self.layout)
        self._longest = max(max_relayed_num_bytes(each, segments) for each in method.all_compressors())
        kinds = frozenset[int]().union(*(relayed_kinds(each, segments) for each in method.all_compressors()))
        # Replaced by each message, never written to: an answer may still hold the one before.
        self._model = copy_of(self.layout.flatten(list(named.values())))
        self._state = self._update.begin(self._model)
        self._reader = MessageReader(self.layout.numel, kinds, self._model.device)
        self.num_merged = 0
        self._counts = [0] * size
        self._fetched_at = [0] * size
        self._staleness_sum = 0
        self.max_staleness = 0

    @property
    def mean_staleness(self) -> float:
        """Messages of others that were merged between a worker's answer and its next message, on average."""
        return self._staleness_sum / max(1, self.num_merged)

    def parameters(self) -> dict[str, Tensor]:
        """The model that workers go on from, by parameter name, as views of it."""
        return self.layout.unflatten(self._model)

    def shared_parameters(self) -> dict[str, Tensor]:
        """What is trained, by parameter name, as views: the model, or what the method makes of it (an average)."""
        return self.layout.unflatten(self._update.shared(self._model, self._state))

    @torch.no_grad()
    def serve(self, until: int, quotas: Sequence[int] | None = None) -> Steps[None]:
        """Merge until ``until`` messages are merged in all, then tell each worker to pause when it comes next.

        Args:
            until: number of messages, with those of before.
            quotas: after how many messages of its own each worker leaves; by default none does before ``until``.

        Raises:
            NumericsError: a worker's message was not finite. The model is as it was before; every worker is told.
            ProtocolError: a message stands for a vector of another length.
        """
        turn = self.begin(until, quotas)
        while turn.active:
            source, message = yield from receive_any(as_it_is, self._longest, tuple(turn.active))
            for worker, answer in self.take(turn, source, message):
                yield from send(worker, answer)
        turn.check()

    def begin(self, until: float = math.inf, quotas: Sequence[int] | None = None) -> Turn:
        """What :meth:`serve` does with the arguments of the same names, for a driver that calls :meth:`take` itself."""
        leaves_at = dict(enumerate([math.inf] * self.size if quotas is None else quotas))
        active = {rank for rank in range(self.size) if self._counts[rank] < leaves_at[rank]}
        return Turn(until, dict(leaves_at), active)

    @torch.no_grad()
    def take(self, turn: Turn, source: int, message: Tensor, size: int | None = None) -> list[tuple[int, Tensor]]:
        """A message has come: merge it; what is to be sent to whom now.

        Args:
            turn: of :meth:`begin`.
            source: the worker.
            message: what it sent.
            size: the number of workers that its sender knew of: the message counts ``1 / size``; by default as many as
                there are now.

        Raises:
            WireError: it is not valid.
            ProtocolError: it stands for a vector of another length.
        """
        payload = self._reader.part(message, f"the message of worker {source}")
        before = Dense(self._model) if self._update.answers_before else None
        if turn.offender is None:
            self._merge(turn, source, payload, self.size if size is None else size)
        turn.waiting[source] = before
        return self.answers(turn)

    def repeat(self, turn: Turn, source: int) -> list[tuple[int, Tensor]]:
        """A message has come once more that was merged before: as :meth:`take`, but the model stays as it is."""
        turn.waiting[source] = None
        return self.answers(turn)

    def join(self, turn: Turn, worker: int | None = None) -> int:
        """One more worker takes part from now on; its rank. Each message counts ``1 / P``, with ``P`` as it is then.

        Args:
            turn: of :meth:`begin`.
            worker: its rank, which may be that of one that has left; by default the next.
        """
        rank = len(self._counts) if worker is None else worker
        if rank in turn.active:
            return rank
        slowest = min((self._counts[other] for other in turn.active), default=0)
        for _ in range(len(self._counts), rank + 1):
            self._counts.append(0)
            self._fetched_at.append(self.num_merged)
        self._counts[rank] = max(self._counts[rank], slowest)
        turn.active.add(rank)
        self.size += 1
        return rank

    def leave(self, turn: Turn, worker: int) -> list[tuple[int, Tensor]]:
        """A worker sends nothing more; what is to be sent to those that have waited for it alone."""
        if worker in turn.active:
            turn.active.discard(worker)
            turn.waiting.pop(worker, None)
            self.size -= 1
        return self.answers(turn)

    def answers(self, turn: Turn) -> list[tuple[int, Tensor]]:
        """To all that need not wait (any longer) for the slowest, in the order in which they came."""
        found = []
        # Who leaves is waited for no longer, so that others may go on after it.
        while ready := self._may_go_on(turn):
            worker = ready[0]
            model = turn.waiting.pop(worker)
            is_last = self.num_merged >= turn.until or self._counts[worker] >= turn.leaves_at.get(worker, math.inf)
            found.append((worker, self._answer(turn, worker, is_last, Dense(self._model) if model is None else model)))
        return found

    def note_fetch(self, worker: int) -> None:
        """A worker has got the model as it is now, outside of an exchange: its staleness counts from here."""
        self._fetched_at[worker] = self.num_merged

    @property
    def max_message_num_bytes(self) -> int:
        """The longest message that a worker can send."""
        return self._longest

    def state_dict(self) -> dict[str, Any]:
        """The model by parameter name, what the update remembers beside it, and the counts."""
        counters = {
            "num_merged": self.num_merged,
            "counts": list(self._counts),
            "fetched_at": list(self._fetched_at),
            "staleness": [self._staleness_sum, self.max_staleness],
            "size": self.size,
            "method": repr(self.method),
        }
        return {"counters": counters, "tensors": self.parameters(), "update": by_parameter(self._state, self.layout)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            ConfigError: the state is of another method, model or number of workers; nothing is changed.
        """
        counters, tensors = saved["counters"], saved["tensors"]
        check_same(counters, {"method": repr(self.method), "size": self.size}, "server")
        remembered = saved.get("update", {})
        own, state = self.parameters(), by_parameter(self._state, self.layout)
        if _shapes(own) != _shapes(tensors) or _shapes(state) != _shapes(remembered):
            raise ConfigError("the saved state is of another model: names or shapes of its parameters differ")
        for views, values in ((own, tensors), (state, remembered)):
            for name, view in views.items():
                view.copy_(values[name])
        self.num_merged = counters["num_merged"]
        self._counts = list(counters["counts"])
        self._fetched_at = list(counters["fetched_at"])
        self._staleness_sum, self.max_staleness = counters["staleness"]

    def _merge(self, turn: Turn, source: int, payload: Payload, size: int) -> None:
        merged = copy_of(self._model)
        state = {name: copy_of(tensor) for name, tensor in self._state.items()}
        self._update.merge(merged, payload, size, state)
        if not is_finite(merged):
            turn.offender = payload
            return
        self._model, self._state = merged, state
        staleness = self.num_merged - self._fetched_at[source]
        self._staleness_sum += staleness
        self.max_staleness = max(self.max_staleness, staleness)
        self.num_merged += 1
        self._counts[source] += 1

    def _may_go_on(self, turn: Turn) -> list[int]:
        if self._bound is None or turn.offender is not None or self.num_merged >= turn.until:
            return list(turn.waiting)
        slowest = min((self._counts[worker] for worker in turn.active), default=0)
        return [worker for worker in turn.waiting if self._counts[worker] - slowest <= self._bound]

    def _answer(self, turn: Turn, worker: int, is_last: bool, model: Payload) -> Tensor:
        control = Control.GO_ON
        if turn.offender is not None:
            control, model = Control.STOP, turn.offender
        elif is_last:
            control = Control.PAUSE
        if control is not Control.GO_ON:
            turn.active.discard(worker)
        self._fetched_at[worker] = self.num_merged
        return write_answer(control, model)


def needs_server(method: Method) -> bool:
    """Whether one more process must hold the model."""
    return isinstance(method.exchange, AsynchronousServer)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
