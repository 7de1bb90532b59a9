"""One participant: a model, an optimizer and a method, and the program that steps them."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import GradientAveraging, Method, ModelAveraging
from thinwire.random import Key
from thinwire.steps import Steps
from thinwire.worker.agreement import Agreement
from thinwire.worker.averaging import GradientMeans, ModelMeans
from thinwire.worker.channel import Channel
from thinwire.worker.exchange_runner import ExchangeRunner, check_same
from thinwire.worker.exchanged import Exchanged
from thinwire.worker.local_steps import check_local_steps
from thinwire.worker.parameters import held_parameters, largest_lr
from thinwire.worker.refusals import check_gradients
from thinwire.worker.resize import refuse_bound, resized
from thinwire.worker.server import needs_server
from thinwire.worker.sharing import can_share
from thinwire.worker.synced import StateMeans
from thinwire.worker.trained import Trained


class Worker:
    """Trains one replica; communicates only by what :meth:`step` yields.

    All workers must start from the same parameters, and compare them, and their methods and seeds, before the first
    exchange. What is exchanged are the optimizer's parameters that need gradients; they are known by their names in
    the model, and so is every tensor of the state. Under gradient averaging a parameter that got no gradient on some
    workers counts as one with a zero gradient there; one that got none on any is not exchanged and keeps none.
    Buffers are never exchanged. Of a sharded parameter (DTensor) each worker exchanges its local shard. What is
    exchanged is float32, also of parameters with fewer bits: what a mean loses when it is written to such parameters
    is kept and counted in at the next exchange.

    What is trained is asked anew at every step: parameters that are unfrozen, added to the optimizer or replaced join
    the next exchange; frozen ones leave it, and what the memory owes them waits until they come back. Where values are
    written to parameters between two steps, alike on all workers, training goes on from there.

    Args:
        method: what is exchanged, when and how.
        model: this worker's replica.
        optimizer: any ``torch.optim`` optimizer over parameters of ``model``.
        rank: this worker, 0 to ``size - 1``.
        size: number of workers.
        seed: the same on every worker; addresses all randomness of the exchanges.

    Raises:
        ConfigError: parameters that do not belong to the model, are not floating point or not on the CPU, or a
            method whose parts do not fit this model.

    Example:
        >>> from thinwire.methods import parse_method
        >>> from thinwire.simulator import Simulation
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> worker = Worker(parse_method("topk:k=1"), model, optimizer, rank=0, size=1, seed=0)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> _ = Simulation(1).run([worker.step()])
        >>> worker.num_steps, worker.num_exchanges
        (1, 1)
    """

    def __init__(
        self, method: Method, model: nn.Module, optimizer: torch.optim.Optimizer, *, rank: int, size: int, seed: int
    ) -> None:
        self.method = method
        self.model = model
        self.optimizer = optimizer
        self.rank, self.size = operator.index(rank), operator.index(size)
        if not 0 <= rank < size:
            raise ConfigError(f"rank {rank} of {size} workers was given; ranks go from 0 to size - 1")
        check_local_steps(method, optimizer, size)
        trained = Trained(model, optimizer)
        check_gradients(method, optimizer, trained.named)
        self.runner = ExchangeRunner(method, self.rank, self.size, operator.index(seed))
        """What counts and reports; a driver may ask for more of either."""
        self.runner.lr = largest_lr(optimizer)
        self.exchanged = Exchanged(method, trained.named, self.rank, self.size, Key(self.runner.seed))
        self.agreement = Agreement(method, trained, self.exchanged)
        """On what all train; a driver that has compared how they begin says so there."""
        parts = self.exchanged, self.agreement, self.runner
        self.gradients = GradientMeans(method, *parts) if isinstance(method, GradientAveraging) else None
        self._models = ModelMeans(method, *parts) if isinstance(method, ModelAveraging) else None
        self._states: StateMeans | None = None
        if isinstance(method, ModelAveraging) and method.states:
            self._states = StateMeans(method, optimizer, *parts)

    def accept_values(self) -> None:
        """What the parameters hold now is this worker's own work, whoever has written it since the last step."""
        self.agreement.trained.note_values()

    @property
    def num_steps(self) -> int:
        """Training steps so far."""
        return self.runner.num_steps

    @property
    def num_exchanges(self) -> int:
        """Exchanges so far, of any fragment."""
        return self.runner.num_exchanges

    @property
    def message_bytes(self) -> int:
        """Bytes that this worker handed to the exchange so far, encoded."""
        return self.runner.message_bytes

    @property
    def layout(self) -> Layout:
        """Names and shapes of what is exchanged."""
        return self.exchanged.layout

    @property
    def channels(self) -> list[Channel]:
        """The consecutive parts of what is exchanged."""
        return self.exchanged.channels

    def sharing_model(self, rank: int) -> "Worker":
        """Worker ``rank`` of the same crew in the same process, on this one's own model and optimizer.

        Under gradient averaging all hold the same parameters at every step, so that a simulation needs one copy: each
        writes its gradients there and hands them to its exchange, and the first that gets the mean steps.

        Raises:
            ConfigError: workers of this method hold parameters of their own, or the model has buffers.
        """
        if self.gradients is None or not can_share(self.method, self.model):
            raise ConfigError("workers can share a model under gradient averaging with a common mean, without buffers")
        other = Worker(self.method, self.model, self.optimizer, rank=rank, size=self.size, seed=self.runner.seed)
        assert other.gradients is not None
        other.gradients.sharing = self.gradients.sharing
        self.gradients.sharing.params = list(self.exchanged.params)
        return other

    def step(self) -> Steps[None]:
        """The program of one training step; the gradients of the local batch must be in place.

        Raises:
            NumericsError: NaN or inf in what some worker would exchange: on every worker, and nothing has changed.
        """
        if (yield from self.before_step()):
            self.optimizer.step()
        yield from self.after_step()

    def before_step(self, skips: bool = False) -> Steps[bool]:
        """What comes before the optimizer's own step; whether it is to be made.

        Args:
            skips: under a loss scale that is being searched, gradients that are not finite on some worker mean that
                none steps, and nothing is remembered; else they are an error.

        Raises:
            NumericsError: NaN or inf in the gradient of some worker, unless ``skips``.
            ConfigError: workers have frozen, unfrozen or replaced different parameters, or hold different values.
        """
        self.look()
        if self._models is not None:
            self._models.direct(skips)
        return self.gradients is None or (yield from self.gradients.average(skips))

    def look(self) -> None:
        """Notice, before a step, what the script has done since the last one: to parameters and learning rates."""
        self.agreement.look()
        self.exchanged.check_in_place()
        self._notice_lr_drop()

    def after_step(self) -> Steps[None]:
        """What comes after the optimizer's own step, whether or not it was made: local steps are counted alike."""
        if self._models is not None:
            self.runner.num_steps += 1
            yield from self._models.average()
        if self._states is not None:
            yield from self._states.average()
        self.accept_values()

    def finish(self) -> Steps[None]:
        """One exchange more (of each fragment), of what was done since the last one: at the end of training.

        Every worker must run it after the same step. Where there is nothing to exchange, or a server, it does nothing.
        """
        if self._models is not None and not needs_server(self.method):
            yield from self._models.finish()
            self.accept_values()

    @property
    def num_unshared_steps(self) -> int:
        """Local steps whose work the other workers have not got: all since the last exchange, of any fragment."""
        return self.exchanged.num_unshared_steps(self.num_steps)

    @torch.no_grad()
    def resize(self, rank: int, size: int) -> None:
        """Be another one of another number of workers; what is owed, ``m / size``, is what it was.

        Beside a server a rank may be higher than the number, where others have left.

        Raises:
            ConfigError: the exchange refuses the number; nothing has changed.
        """
        if (rank, size) == (self.rank, self.size):
            return
        self.exchanged.resize(rank, size)
        self.rank, self.size = self.runner.rank, self.runner.size = rank, size

    def parameters(self) -> dict[str, Tensor]:
        """What is trained, by name."""
        return self.exchanged.parameters()

    def shared_parameters(self) -> dict[str, Tensor]:
        """The parameters that all workers have in common, by name: read-only views or the model's own tensors.

        Under model averaging it is the reference point, the model after the last exchange; this is what a
        comparison evaluates. Under gradient averaging it is the model.
        """
        return self.exchanged.shared()

    @property
    def is_paused(self) -> bool:
        """Whether an asynchronous server told this worker, at its last exchange, to stop for now."""
        paused = self.channels[0].exchange.get("paused")
        return paused is not None and bool(paused)

    def memory_norm(self) -> float:
        """``||m||_2`` of the residual, 0 without memory: the health of error feedback."""
        return self.exchanged.memory_norm()

    def state_dict(self) -> dict[str, Any]:
        """Everything of this worker but the model and the optimizer: counters, and tensors by parameter name.

        Tensors may be views of the live state: save or clone them before the next step.
        """
        counters = {
            **self.runner.identity(),
            "num_steps": self.num_steps,
            "num_exchanges": self.num_exchanges,
            "message_bytes": self.message_bytes,
            "lr": self.runner.lr,
            "union_density": self.runner.union_density,
            "pending": [None if each.pending is None else each.pending.due for each in self.channels],
            "exchanged": list(self.layout.names),
            "used": list(self.agreement.used),
            "exchanged_at": list(self.exchanged.exchanged_at),
            "leaves_at": self.agreement.leaves_at,
        }
        return {"counters": counters, "tensors": self.exchanged.tensors() | self.agreement.tensors()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken; the bits are those of an uninterrupted run.

        Raises:
            ConfigError: it is of another method, model, rank, seed or number of workers; nothing is changed.
        """
        counters, tensors = saved["counters"], saved["tensors"]
        check_same(counters, self.runner.identity(), "worker")
        names = counters.get("exchanged", self.layout.names)
        noticed = {name: tensor for name, tensor in tensors.items() if name.startswith("noticed.")}
        remembered = {name: tensor for name, tensor in tensors.items() if name not in noticed}
        self.exchanged.load(remembered, counters["pending"], names, held_parameters(self.model, self.optimizer))
        self.agreement.resume(counters.get("used", self.agreement.used), names, noticed)
        self.agreement.leaves_at = counters.get("leaves_at")
        self.exchanged.exchanged_at = list(counters.get("exchanged_at", [-1] * len(self.channels)))
        self.exchanged.stands = False
        self.runner.lr = counters["lr"]
        runner = self.runner
        runner.num_steps, runner.num_exchanges = counters["num_steps"], counters["num_exchanges"]
        runner.message_bytes, runner.union_density = counters["message_bytes"], counters["union_density"]
        if self.gradients is not None:
            self.gradients.sharing.num_steps = self.num_steps

    @torch.no_grad()
    def load_resized(self, saved: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from a run with another number of workers; :func:`thinwire.worker.resize.resized` has the rule.

        The model is written as well; the optimizer's state is the caller's to load.

        Args:
            saved: :meth:`state_dict` of every worker of that run, in rank order.
            models: the trained parameters of each of them, by the names of :meth:`parameters`.

        Raises:
            ConfigError: the run was of another method, model or seed, or workers of this method hold something that
                has no meaning for another number of them.
        """
        state, params = resized(self.method, saved, models, self.rank, self.size)
        refuse_bound(state, self.exchanged.keeper.live(), len(saved))
        self.load_state_dict(state)
        self.exchanged.write(params)
        self.exchanged.exchanged_at = [self.num_steps] * len(self.channels)

    def _notice_lr_drop(self) -> None:
        lr, before = largest_lr(self.optimizer), self.runner.lr
        self.runner.lr = lr
        if self.method.reset_memory and lr < 0.5 * before:
            self.exchanged.reset_memory()
