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
from thinwire.worker.channel import Channel, Outcome, Pending
from thinwire.worker.exchanged import Exchanged
from thinwire.worker.layer_report import ExchangeWatcher
from thinwire.worker.local_steps import check_local_steps
from thinwire.worker.news import Conclusion
from thinwire.worker.parameters import (
    gradients,
    held_parameters,
    largest_lr,
    named_parameters,
    restore_gradients,
)
from thinwire.worker.refusals import check_gradients, find_nonfinite, numerics_error
from thinwire.worker.resize import refuse_bound, resized
from thinwire.worker.server import needs_server
from thinwire.worker.sharing import Sharing, can_share
from thinwire.worker.state import check_same, named_tensors
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
        self.num_steps = 0
        self.num_exchanges = 0
        self.message_bytes = 0
        if not 0 <= rank < size:
            raise ConfigError(f"rank {rank} of {size} workers was given; ranks go from 0 to size - 1")
        check_local_steps(method, optimizer, size)
        trained = Trained(model, optimizer)
        check_gradients(method, optimizer, trained.named)
        self.agreement = Agreement(method, trained)
        """On what all train; a driver that has compared how they begin says so there."""
        self._key = Key(operator.index(seed))
        self._lr = largest_lr(optimizer)
        self.watcher: ExchangeWatcher | None = None
        """What looks at exchanges that it chooses, such as a :class:`LayerReport`."""
        self.counts_union = False
        """Whether :attr:`union_density` is counted, in a pass over every mean."""
        self.union_density: float | None = None
        """The share of entries that are not 0 in the last mean."""
        self.exchanged = Exchanged(method, trained.named, self.rank, self.size, self._key)
        self._leaves_at: int | None = None
        self._overtaken = False
        self._is_idle = False
        self._sharing = Sharing()

    def accept_values(self) -> None:
        """What the parameters hold now is this worker's own work, whoever has written it since the last step."""
        self.agreement.trained.note_values()

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
        if not can_share(self.method, self.model):
            raise ConfigError("workers can share a model under gradient averaging with a common mean, without buffers")
        other = Worker(self.method, self.model, self.optimizer, rank=rank, size=self.size, seed=self._key.seed)
        self._sharing.params = list(self.exchanged.params)
        other._sharing = self._sharing
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
        if self.agreement.look(self.shared_parameters, self.exchanged.stands):
            self._overtaken |= any(channel.pending is not None for channel in self.channels)
        self.exchanged.check_in_place()
        self._notice_lr_drop()
        if isinstance(self.method, ModelAveraging):
            return True
        return (yield from self._average_gradients(self.method, skips))

    @torch.no_grad()
    def _average_gradients(self, method: GradientAveraging, skips: bool) -> Steps[bool]:
        used = self.agreement.trained.with_gradients(self.agreement.used, counts_all=self.exchanged.is_bound)
        own = self._sharing.own_gradients()
        if (yield from self.agreement.begin(self.layout, self._key.seed, self.size)):
            restore_gradients(own)  # meanwhile workers beside this one have put theirs there
        while True:
            (channel,) = self.channels
            has_news = self.agreement.has_news(used)
            filled = [param for param in self.exchanged.params if param.grad is None]
            x, finite = channel.marked() if has_news else self.exchanged.gather_gradient(channel, method)
            outcome = yield from self._exchange(channel, x, finite)
            if outcome.aggregate.finite:
                break
            for param in filled:
                param.grad = None
            restore_gradients(own)
            concluded = yield from self._tell(has_news, finite, used)
            if concluded.first_nonfinite or not concluded.is_new:
                if skips:
                    return False
                raise numerics_error(channel, outcome, concluded.first_nonfinite, "gradient", self.num_steps + 1)
        is_first = self._sharing.num_steps == self.num_steps  # else a worker beside this one has done it
        if not self._is_idle:
            self._accept(channel, outcome)
        if is_first and not self._is_idle:
            # Not those of before: workers beside this one have cleared them and made their own.
            channel.write_result(outcome.aggregate, gradients(self.exchanged.params))
        self._sharing.num_steps += is_first
        self.num_steps += 1
        return is_first

    @torch.no_grad()
    def after_step(self) -> Steps[None]:
        """What comes after the optimizer's own step, whether or not it was made: local steps are counted alike."""
        if isinstance(self.method, ModelAveraging):
            self.num_steps += 1
            self.exchanged.stands = False
            yield from self._average_models(self.method)
        self.accept_values()

    @torch.no_grad()
    def finish(self) -> Steps[None]:
        """One exchange more (of each fragment), of what was done since the last one: at the end of training.

        Every worker must run it after the same step. Where there is nothing to exchange, or a server, it does nothing.
        """
        if not isinstance(self.method, ModelAveraging) or needs_server(self.method):
            return
        self.exchanged.end_waits()
        while self.num_unshared_steps:
            yield from self._average_next(self.method, delay=0)
        self.accept_values()

    @property
    def num_unshared_steps(self) -> int:
        """Local steps whose work the other workers have not got: all since the last exchange, of any fragment."""
        return self.exchanged.num_unshared_steps(self.num_steps)

    def _average_models(self, method: ModelAveraging) -> Steps[None]:
        for channel in self.channels:
            if channel.pending is not None and channel.pending.due <= self.num_steps:
                self.exchanged.end_wait(channel)
        if method.schedule.due(self.num_steps, self.rank):
            yield from self._average_next(method, method.delay)

    def _average_next(self, method: ModelAveraging, delay: int) -> Steps[None]:
        """The exchange of the fragment whose turn it is."""
        yield from self.agreement.begin(self.layout, self._key.seed, self.size)
        used = list(self.agreement.trained.named)
        while True:
            turn = self.num_exchanges % len(self.channels)
            channel = self.channels[turn]
            self.exchanged.end_wait(channel)  # for its turn before
            has_news = self.agreement.has_news(used)
            if has_news:
                x, finite = channel.marked()
            else:
                x, finite = channel.gather_params()
                x = method.update.signal(x, channel.update)
            outcome = yield from self._exchange(channel, x, finite)
            if outcome.aggregate.finite:
                break
            concluded = yield from self._tell(has_news, finite, used)
            if concluded.first_nonfinite or not concluded.is_new:
                raise numerics_error(channel, outcome, concluded.first_nonfinite, "model", self.num_steps)
        self._accept(channel, outcome)
        self.exchanged.exchanged_at[turn] = self.num_steps
        if delay:
            channel.pending = Pending(outcome.aggregate, self.num_steps + delay)
        else:
            self.exchanged.apply(channel, outcome.aggregate)
        if self._leaves_at is not None and self.num_exchanges >= self._leaves_at:
            self._leaves_at = None
            self.exchanged.end_waits()
            self._regroup(list(self.agreement.trained.named), {})

    def _tell(self, has_news: bool, finite: bool, used: Sequence[str]) -> Steps[Conclusion]:
        """Tell the other workers why the exchange cannot count, and follow what all conclude."""
        own = self.parameters()
        first_nonfinite = "" if finite or has_news else find_nonfinite(self.method, own)
        known = self.exchanged.known
        concluded = yield from self.agreement.tell(
            has_news, first_nonfinite, used, own, self.shared_parameters(), known
        )
        if concluded.is_new:
            self.exchanged.end_waits()
            self._leaves_at = self.num_exchanges + len(self.channels) if concluded.adrift else None
            self._is_idle = not concluded.used
            exchanged = {*concluded.used, *concluded.adrift} or {*self.layout.names}
            begins = self.agreement.joining(known)
            if begins or self.agreement.trained.replaced or exchanged != {*self.layout.names}:
                self._regroup([name for name in named_parameters(self.model) if name in exchanged], begins)
            self.exchanged.begin_at(self.agreement.settle(concluded, used), overwrites=self._overtaken)
            self._overtaken = False
        return concluded

    def _regroup(self, names: Sequence[str], begins: Mapping[str, Tensor]) -> None:
        """From now on these are exchanged."""
        known = {**self.parameters(), **self.agreement.trained.named}
        self.exchanged.regroup({name: known[name] for name in names}, begins, self.agreement.trained.replaced)

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
            "num_steps": self.num_steps,
            "num_exchanges": self.num_exchanges,
            "message_bytes": self.message_bytes,
            "rank": self.rank,
            "size": self.size,
            "seed": self._key.seed,
            "method": repr(self.method),
            "lr": self._lr,
            "union_density": self.union_density,
            "pending": [None if each.pending is None else each.pending.due for each in self.channels],
            "exchanged": list(self.layout.names),
            "used": list(self.agreement.used),
            "exchanged_at": list(self.exchanged.exchanged_at),
            "leaves_at": self._leaves_at,
        }
        return {"counters": counters, "tensors": self.exchanged.tensors() | self.agreement.tensors()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken; the bits are those of an uninterrupted run.

        Raises:
            ConfigError: it is of another method, model, rank, seed or number of workers; nothing is changed.
        """
        counters, tensors = saved["counters"], saved["tensors"]
        own = {"method": repr(self.method), "rank": self.rank, "size": self.size, "seed": self._key.seed}
        check_same(counters, own, "worker")
        held = held_parameters(self.model, self.optimizer)
        names = counters.get("exchanged", self.layout.names)
        noticed = {name: tensor for name, tensor in tensors.items() if name.startswith("noticed.")}
        self.exchanged.load(tensors, counters["pending"], names, held)
        self.agreement.resume(counters.get("used", self.agreement.used), names, noticed)
        self._leaves_at = counters.get("leaves_at")
        self.exchanged.exchanged_at = list(counters.get("exchanged_at", [-1] * len(self.channels)))
        self.exchanged.stands = False
        self._lr = counters["lr"]
        self.union_density = counters["union_density"]
        self.num_steps = self._sharing.num_steps = counters["num_steps"]
        self.num_exchanges = counters["num_exchanges"]
        self.message_bytes = counters["message_bytes"]

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
        refuse_bound(state, named_tensors(self.channels, self.layout), len(saved))
        self.load_state_dict(state)
        self.exchanged.write(params)
        self.exchanged.exchanged_at = [self.num_steps] * len(self.channels)

    def _exchange(self, channel: Channel, x: Tensor, finite: bool) -> Steps[Outcome]:
        turn = self.num_exchanges // len(self.channels)
        is_watched = self.watcher is not None and self.watcher.is_due(turn, self.rank)
        compressor = self.method.compressor_at(turn)
        return (yield from channel.run(x, compressor, finite, self.num_exchanges, is_watched))

    def _accept(self, channel: Channel, outcome: Outcome) -> None:
        channel.accept(outcome)
        aggregate = outcome.aggregate
        if self.watcher is not None:
            # A step that averages gradients is counted after its exchange, one that averages models before.
            step = self.num_steps + isinstance(self.method, GradientAveraging)
            self.watcher.take(channel, outcome, step)
        self.num_exchanges += 1
        self.message_bytes += aggregate.message_bytes
        if self.counts_union:
            self.union_density = aggregate.num_nonzero() / max(channel.layout.numel, 1)

    def _notice_lr_drop(self) -> None:
        lr, before = largest_lr(self.optimizer), self._lr
        self._lr = lr
        if self.method.reset_memory and lr < 0.5 * before:
            self.exchanged.reset_memory()
