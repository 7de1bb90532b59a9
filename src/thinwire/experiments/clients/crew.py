"""The places of a round, and the clients that take turns at them."""

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from thinwire.experiments.clients.absent import Absent
from thinwire.experiments.clients.engine import ClientEngine
from thinwire.experiments.clients.fitting import check_common, check_fits
from thinwire.experiments.clients.round_log import RoundLog
from thinwire.experiments.learning_rates import make_rates
from thinwire.experiments.sharding import Batches
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.stepping import Seat
from thinwire.experiments.tasks import Task
from thinwire.experiments.training import make_crew, make_worker
from thinwire.methods import GradientAveraging, Method, parse_method
from thinwire.payloads import Dense
from thinwire.random import Key
from thinwire.steps import Steps
from thinwire.wire import encoded_num_bytes
from thinwire.worker import Worker, can_share


class ClientCrew:
    """As many workers as take part in a round; in each round other clients sit at their places.

    A client that sits down brings its memory, the state of its optimizer and its buffers, as far as they are kept, and
    finds the common model: no client has a model while it is absent. What it owes to the mean counts as 1 over the mean
    number of participants in every round, so that no memory is scaled.

    Args:
        comparison: with clients.
        run: of it.
        task: what is trained.
        engine: of these clients.
        batches: of each client.

    Raises:
        ConfigError: the method binds something to a place.
    """

    def __init__(
        self, comparison: Comparison, run: Run, task: Task, engine: ClientEngine, batches: Sequence[Batches]
    ) -> None:
        assert comparison.clients is not None
        self._clients = comparison.clients
        self._run, self._task, self._engine, self._batches = run, task, engine, batches
        self._method: Method = parse_method(run.variant)
        self._key = Key(run.seed).fold("clients")
        self._rates = make_rates(comparison.lr_schedule, run.steps)
        self.workers = make_crew(
            task, self._method, run.setting.optimizer, run.setting.lr, engine.local_ranks, engine.size, run.seed
        )
        """One a place; more if more take part than ever before."""
        check_fits(self._method, self.workers[0].layout, self._clients)
        self.absent = Absent(self._clients, self.workers[0])
        self._steps_made = [0] * self._clients.count
        self._next_number = 0
        self._is_checked = False
        self.log = RoundLog(engine)
        """Of the rounds."""
        self.seats: list[Seat] = []
        """Who sits where in the present round."""

    def train(self, stop: int, program: Callable[[Seat, int, int], Steps[None]]) -> None:
        """All rounds up to step ``stop``, which may lie within one.

        Args:
            stop: a number of steps.
            program: of a worker, up to a step, before an evaluation at another one.
        """
        while self._num_steps < stop:
            if self._num_steps >= self.log.ends_at:
                self._begin_round()
            self._engine.run([program(seat, min(stop, self.log.ends_at), stop) for seat in self.seats])
            if self._num_steps == self.log.ends_at:
                self._end_round()

    def state_dict(self) -> dict[str, Any]:
        """All but the workers' own states: who sits, what the absent remember, and the counts."""
        return {
            "sizes": [worker.size for worker in self.workers],
            "seated": [seat.owner for seat in self.seats],
            "absent": self.absent.state_dict(),
            "steps_made": list(self._steps_made),
            "next_number": self._next_number,
            "round": self.log.state_dict(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; the workers' own states are to be loaded next."""
        while len(self.workers) < len(saved["sizes"]):
            self._add_place(len(saved["sizes"]))
        for rank, (worker, size) in enumerate(zip(self.workers, saved["sizes"], strict=True)):
            worker.resize(rank, size)
        self.absent.load_state_dict(saved["absent"])
        self._steps_made = list(saved["steps_made"])
        self._next_number = saved["next_number"]
        self.log.load_state_dict(saved["round"])
        self.seats = self._seated(saved["seated"], self.log.begun_at)

    @property
    def _num_steps(self) -> int:
        # The first place is taken in every round.
        return self.workers[0].num_steps

    def _begin_round(self) -> None:
        step, before = self._num_steps, [seat.owner for seat in self.seats]
        for seat in self.seats:
            self.absent.put(seat.owner, self.log.number, seat.worker)
        number, clients = self._draw()
        self._make_places(len(clients), len(before))
        self.absent.expire(number)
        self.seats = self._seated(clients, step)
        for seat in self.seats:
            self.absent.take(seat.owner, seat.worker)
        # Before the first exchange everybody makes the model from the seed.
        num_bytes = common_num_bytes(self.workers[0]) if self.workers[0].num_exchanges else 0
        handed = [0 if client in before else num_bytes for client in clients]
        self.log.begin(number, (step, self._end_of_round(step)), self.seats, handed)
        self._engine.seat(clients, {client: size for client, size in zip(clients, handed, strict=True) if size})

    def _draw(self) -> tuple[int, list[int]]:
        while True:  # a round in which nobody takes part takes no time and no step
            number, self._next_number = self._next_number, self._next_number + 1
            clients = self._clients.participation.draw(number, self._clients.count, self._key)
            if clients:
                return number, clients

    def _end_of_round(self, step: int) -> int:
        """The step after which those who sit exchange; beyond the end of the run if they never do."""
        if isinstance(self._method, GradientAveraging):
            return step + 1
        ends = (each for each in range(step + 1, self._run.steps + 1) if self._method.schedule.due(each, 0))
        return next(ends, self._run.steps + 1)

    def _end_round(self) -> None:
        workers = [seat.worker for seat in self.seats]
        if not self._is_checked and len(workers) > 1:
            check_common(workers)
            self._is_checked = True
        for seat in self.seats:
            self._steps_made[seat.owner] += self.log.ends_at - self.log.begun_at
        if self._method.reset_memory and self._has_rate_dropped():
            self.absent.forget()  # those who sit have forgotten by themselves
        self.log.end(self.seats)

    def _has_rate_dropped(self) -> bool:
        rates = [self._rates.at(1.0, max(0, step)) for step in range(self.log.begun_at - 1, self.log.ends_at)]
        return any(after < 0.5 * before for before, after in itertools.pairwise(rates))

    def _seated(self, clients: Sequence[int], step: int) -> list[Seat]:
        weight = len(clients) / self._clients.participation.mean_size(self._clients.count)
        seats = []
        for worker, client in zip(self.workers[: len(clients)], clients, strict=True):
            worker.runner.weight = weight
            seats.append(Seat(worker, self._batches[client], client, step - self._steps_made[client]))
        return seats

    def _make_places(self, count: int, num_current: int) -> None:
        """So many workers of so many, all at the common point; ``num_current`` of them took part in the last round."""
        for worker in self.workers[count:num_current]:
            worker.channels[0].reset_memory()
        for rank, worker in enumerate(self.workers[:count]):
            if worker.size != count:
                worker.channels[0].reset_memory()  # a client's, which must not be scaled
                worker.resize(rank, count)
        while len(self.workers) < count:
            self._add_place(count)
        lead = self.workers[0]
        for worker in self.workers[num_current:count] if lead.num_steps else ():
            catch_up(worker, lead)

    def _add_place(self, size: int) -> None:
        rank, lead, setting = len(self.workers), self.workers[0], self._run.setting
        if can_share(self._method, lead.model):
            lead.resize(0, max(size, lead.size))
            self.workers.append(lead.sharing_model(rank))
        else:
            parts = self._task, self._method, setting.optimizer, setting.lr
            self.workers.append(make_worker(*parts, rank, size, self._run.seed))


def catch_up(worker: Worker, lead: Worker) -> None:
    """Let a worker that sat out stand where ``lead`` does, with all that is common; its memory is for others to set."""
    if worker.model is not lead.model:
        worker.model.load_state_dict(lead.model.state_dict())
        if isinstance(worker.method, GradientAveraging):
            worker.optimizer.load_state_dict(copy.deepcopy(lead.optimizer.state_dict()))
    state = lead.state_dict()
    own = {"rank": worker.rank, "size": worker.size, "message_bytes": worker.message_bytes}
    worker.load_state_dict({"counters": {**state["counters"], **own}, "tensors": state["tensors"]})


def common_vectors(worker: Worker) -> list[Tensor]:
    """What a client is handed before its turn, f32: the model, and what goes with it when a mean is applied.

    That is an outer step's momentum and, where gradients are averaged, the state of the optimizer.
    """
    (channel,) = worker.channels
    if channel.update:
        return [vector.view(-1) for vector in channel.update.values()]
    state, params = worker.optimizer.state, worker.exchanged.params
    kinds = dict.fromkeys(name for param in params for name in state.get(param, {}))
    found = [[state.get(param, {}).get(kind) for param in params] for kind in kinds]
    own = [
        [each.float().view(-1) for each, param in zip(tensors, params, strict=True) if _has_shape(each, param)]
        for tensors in found
    ]
    return [channel.local(), *(torch.cat(tensors) for tensors in own if tensors)]


def common_num_bytes(worker: Worker) -> int:
    """Of the messages that hand over :func:`common_vectors`, encoded."""
    return sum(encoded_num_bytes(Dense(vector)) for vector in common_vectors(worker))


def _has_shape(value: object, param: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == param.shape
