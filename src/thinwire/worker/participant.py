"""One participant: a model, an optimizer and a method, and the program that steps them."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.errors import ConfigError, NumericsError
from thinwire.exchanges import Aggregate
from thinwire.layout import Layout
from thinwire.methods import GradientAveraging, Method, ModelAveraging
from thinwire.random import Key
from thinwire.steps import Steps
from thinwire.worker.agreement import Agreement
from thinwire.worker.channel import Channel, Outcome, Pending
from thinwire.worker.local_steps import check_local_steps
from thinwire.worker.news import Conclusion
from thinwire.worker.observing import LayerReport
from thinwire.worker.parameters import (
    check_in_place,
    find_offence,
    gradients,
    held_parameters,
    largest_lr,
    local_part,
    plain_name,
)
from thinwire.worker.regrouping import Grouped, group, owner, regroup
from thinwire.worker.resize import no_meaning, resized
from thinwire.worker.server import needs_server
from thinwire.worker.state import check_same, load_tensors, named_tensors
from thinwire.worker.step_times import StepClock
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

    What is trained is asked anew at every step. Parameters that are unfrozen, added to the optimizer or replaced join
    the next exchange; frozen ones leave it, and what the memory owes them waits until they come back. All workers
    must do that at the same step. Values that are written to the parameters between two steps, alike on all workers,
    are where training goes on.

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
        _check_gradients(method, optimizer, trained.named)
        self.agreement = Agreement(method, trained)
        """With the other workers, on what all train; a driver that has compared how they begin says so there."""
        self._key = Key(operator.index(seed))
        self._lr = largest_lr(optimizer)
        self.layer_report: LayerReport | None = None
        """What is told how each parameter fared, in exchanges that it samples."""
        self.counts_union = False
        """Whether :attr:`union_density` is counted, in one pass over every mean."""
        self.union_density: float | None = None
        """The share of entries that are not 0 in the last mean: of a gather, what at least one worker has sent."""
        self._clock: StepClock | None = None
        self._take(group(method, trained.named, self.rank, self.size, self._key), trained.named)
        self._exchanged_at = [0] * len(self.channels)
        self._leaves_at: int | None = None
        self._overtaken = False
        self._is_idle = False
        self._stands = all("reference" in channel.update for channel in self.channels)
        self._stepped = _Counter()
        self._beside: list[Tensor] = []

    def measure(self, clock: StepClock | None) -> None:
        """Let a clock measure the time of compression."""
        self._clock = clock
        for channel in self.channels:
            channel.clock = clock

    def accept_values(self) -> None:
        """What the parameters hold now is this worker's own work, whoever has written it since the last step."""
        self.agreement.trained.note_values()

    @property
    def layout(self) -> Layout:
        """Names and shapes of what is exchanged."""
        return self._group.layout

    @property
    def channels(self) -> list[Channel]:
        """The consecutive parts of what is exchanged."""
        return self._group.channels

    def beside(self, rank: int) -> "Worker":
        """Worker ``rank`` of the same crew in the same process, on this one's own model and optimizer.

        Under gradient averaging all workers hold the same parameters at every step, so that a simulation needs one
        copy: each writes its gradients there and hands them to its exchange, and the first that gets the mean steps.

        Raises:
            ConfigError: workers of this method hold parameters of their own, or the model has buffers, which are
                each worker's own.
        """
        if not can_share(self.method, self.model):
            raise ConfigError("workers can share a model under gradient averaging with a common mean, without buffers")
        other = Worker(self.method, self.model, self.optimizer, rank=rank, size=self.size, seed=self._key.seed)
        other._stepped = self._stepped
        other._beside = self._beside = list(self._params)
        return other

    def step(self) -> Steps[None]:
        """The program of one training step; the gradients of the local batch must be in place.

        Raises:
            NumericsError: NaN or inf in what some worker would exchange; every worker raises at the same step,
                with its memory and the common model as they were before the exchange.
        """
        if (yield from self.before_step()):
            self.optimizer.step()
        yield from self.after_step()

    def before_step(self, skips: bool = False) -> Steps[bool]:
        """What comes before the optimizer's own step; whether it is to be made.

        Args:
            skips: under a loss scale that is being searched, gradients that are not finite on some worker mean that no
                worker steps, and nothing is remembered; else they are an error.

        Raises:
            NumericsError: NaN or inf in the gradient of some worker, unless ``skips``.
            ConfigError: workers have frozen, unfrozen or replaced different parameters, or hold different values.
        """
        if self.agreement.look(self.shared_parameters, self._stands):
            self._overtaken |= any(channel.pending is not None for channel in self.channels)
        check_in_place(self._viewed, self._addresses)
        self._notice_lr_drop()
        if isinstance(self.method, ModelAveraging):
            return True
        return (yield from self._average_gradients(self.method, skips))

    @torch.no_grad()
    def _average_gradients(self, method: GradientAveraging, skips: bool) -> Steps[bool]:
        used = self.agreement.trained.with_gradients(self.agreement.used)
        # Workers beside this one write theirs to the same place before this one may have to look again.
        own = [(param, None if param.grad is None else param.grad.clone()) for param in self._beside]
        yield from self.agreement.begin(self.layout, self._key.seed, self.size)
        _give_back(own)
        while True:
            (channel,) = self.channels
            has_news = self.agreement.has_news(used)
            filled = [param for param in self._params if param.grad is None]
            x, finite = channel.marked() if has_news else self._clipped_gradient(channel, method)
            outcome = yield from self._exchange(channel, x, finite)
            if outcome.aggregate.finite:
                break
            for param in filled:
                param.grad = None
            _give_back(own)
            concluded = yield from self._tell(has_news, finite, used)
            if concluded.offence or not concluded.is_new:
                if skips:
                    return False
                raise _numerics_error(channel, outcome, concluded.offence, "gradient", self.num_steps + 1)
        is_first = self._stepped.count == self.num_steps  # else a worker beside this one has done it
        if self._is_idle:
            self._stepped.count += is_first
            self.num_steps += 1
            return is_first
        self._accept(channel, outcome)
        if is_first:
            # Not those of before: workers beside this one have cleared them and made their own.
            channel.write_result(outcome.aggregate, gradients(self._params))
            self._stepped.count += 1
        self.num_steps += 1
        return is_first

    @torch.no_grad()
    def after_step(self) -> Steps[None]:
        """What comes after the optimizer's own step, whether or not it was made: local steps are counted alike."""
        if isinstance(self.method, ModelAveraging):
            self.num_steps += 1
            self._stands = False
            yield from self._average_models(self.method)
        self.accept_values()

    @torch.no_grad()
    def finish(self) -> Steps[None]:
        """One exchange more (of each fragment), of what was done since the last one: at the end of training.

        Every worker must run it after the same step. Where there is nothing to exchange it does nothing: under
        gradient averaging, right after an exchange, and where a server tells workers when to end.
        """
        method = self.method
        if not isinstance(method, ModelAveraging) or needs_server(method):
            return
        self._end_waits(method)
        while self.num_unshared_steps:
            yield from self._average_next(method, delay=0)
        self.agreement.trained.note_values()

    @property
    def num_unshared_steps(self) -> int:
        """Local steps whose work the other workers have not got: all since the last exchange, of any fragment."""
        if not isinstance(self.method, ModelAveraging):
            return 0
        waits = any(channel.pending is not None for channel in self.channels)
        return max(self.num_steps - min(self._exchanged_at), int(waits))

    def _clipped_gradient(self, channel: Channel, method: GradientAveraging) -> tuple[Tensor, bool]:
        grads = gradients(self._params)
        if method.clip_norm is not None:
            norm = torch.nn.utils.get_total_norm(grads)
            if torch.isfinite(norm):
                # The sum of P independent gradients is sqrt(P) times as long as one of them.
                longest = method.clip_norm / math.sqrt(self.size)
                torch.nn.utils.clip_grads_with_norm_(self._params, longest, norm)
        return channel.gather(grads)

    def _average_models(self, method: ModelAveraging) -> Steps[None]:
        for channel in self.channels:
            if channel.pending is not None and channel.pending.due <= self.num_steps:
                self._end_wait(channel, method, channel.pending)
        if method.schedule.due(self.num_steps, self.rank):
            yield from self._average_next(method, method.delay)

    def _average_next(self, method: ModelAveraging, delay: int) -> Steps[None]:
        """The exchange of the fragment whose turn it is."""
        yield from self.agreement.begin(self.layout, self._key.seed, self.size)
        used = list(self.agreement.trained.named)
        while True:
            turn = self.num_exchanges % len(self.channels)
            channel = self.channels[turn]
            if channel.pending is not None:  # the next turn of a fragment ends the wait for the one before
                self._end_wait(channel, method, channel.pending)
            has_news = self.agreement.has_news(used)
            x, finite = channel.marked() if has_news else self._displacement(channel, method)
            outcome = yield from self._exchange(channel, x, finite)
            if outcome.aggregate.finite:
                break
            concluded = yield from self._tell(has_news, finite, used)
            if concluded.offence or not concluded.is_new:
                raise _numerics_error(channel, outcome, concluded.offence, "model", self.num_steps)
        self._accept(channel, outcome)
        self._exchanged_at[turn] = self.num_steps
        if delay:
            channel.pending = Pending(outcome.aggregate, self.num_steps + delay)
        else:
            self._apply(channel, method, outcome.aggregate)
        if self._leaves_at is not None and self.num_exchanges >= self._leaves_at:
            self._leaves_at = None
            self._end_waits(method)
            self._regroup(list(self.agreement.trained.named), {})

    def _displacement(self, channel: Channel, method: ModelAveraging) -> tuple[Tensor, bool]:
        params, finite = channel.gather_params()
        return method.update.signal(params, channel.update), finite

    def _end_wait(self, channel: Channel, method: ModelAveraging, pending: Pending) -> None:
        self._apply(channel, method, pending.aggregate)
        channel.pending = None

    def _end_waits(self, method: ModelAveraging) -> None:
        for channel in self.channels:
            if channel.pending is not None:
                self._end_wait(channel, method, channel.pending)

    def _apply(self, channel: Channel, method: ModelAveraging, aggregate: Aggregate) -> None:
        following = method.update.apply(aggregate, channel.local, channel.update)
        self._stands = following is channel.update.get("reference") and len(self.channels) == 1
        channel.write_params(following)

    def _tell(self, has_news: bool, finite: bool, used: Sequence[str]) -> Steps[Conclusion]:
        """Tell the other workers why the exchange cannot count, and follow what all conclude."""
        own = self.parameters()
        by_gradient = isinstance(self.method, GradientAveraging)
        offence = "" if finite or has_news else find_offence(own, by_gradient=by_gradient)
        known = self._group.known()
        concluded = yield from self.agreement.tell(has_news, offence, used, own, self.shared_parameters(), known)
        if concluded.is_new:
            if isinstance(self.method, ModelAveraging):
                self._end_waits(self.method)
            self._leaves_at = self.num_exchanges + len(self.channels) if concluded.adrift else None
            self._is_idle = not concluded.used
            exchanged = {*concluded.used, *concluded.adrift} or {*self.layout.names}
            begins = self.agreement.joining(known)
            if begins or self.agreement.trained.replaced or exchanged != {*self.layout.names}:
                self._regroup([name for name in _in_order(self.model) if name in exchanged], begins)
            self._begin_at(self.agreement.settle(concluded, used))
            self._overtaken = False
        return concluded

    def _regroup(self, names: Sequence[str], begins: Mapping[str, Tensor]) -> None:
        """From now on these are exchanged."""
        known = {**self.parameters(), **self.agreement.trained.named}
        named = {name: known[name] for name in names}
        replaced = self.agreement.trained.replaced
        grouped = regroup(self._group, named, begins, replaced, self._key, stands=self._stands)
        self._take(grouped, known)
        self._exchanged_at = [min(self._exchanged_at)] * len(self.channels)

    def _take(self, grouped: Grouped, known: Mapping[str, Tensor]) -> None:
        """From now on this is what is exchanged; ``known`` has the parameters by name."""
        self._group = grouped
        self.measure(self._clock)
        self._params = [known[name] for name in self.layout.names]
        # Views are held of what is sharded or cut, and they must stay views.
        is_viewed = len(self.channels) > 1 or any(local_part(param) is not param for param in self._params)
        self._viewed = self._params if is_viewed else []
        self._addresses = [local_part(param).data_ptr() for param in self._viewed]

    def _begin_at(self, values: Mapping[str, Tensor]) -> None:
        """These are the values of the common point."""
        tensors = dict(named_tensors(self.channels, self.layout))
        for name, value in values.items():
            for kind, following in (("update.reference", value.float()), ("rounding.lost", torch.zeros(value.shape))):
                if f"{kind}.{name}" in tensors:
                    tensors[f"{kind}.{name}"] = following
            if self._overtaken:  # by a mean of what was there before it was written
                local_part(self.parameters()[name]).copy_(value)
        if values:
            load_tensors(self.channels, self.layout, tensors, [None] * len(self.channels))

    def parameters(self) -> dict[str, Tensor]:
        """What is trained, by name."""
        return dict(zip(self.layout.names, self._params, strict=True))

    def held_parameters(self) -> dict[str, Tensor]:
        """All that the optimizer has and that should be the same on all workers, by name: frozen ones too."""
        held = held_parameters(self.model, self.optimizer)
        return {name: local_part(param.detach()) for name, param in held.items()} | self.shared_parameters()

    def shared_parameters(self) -> dict[str, Tensor]:
        """The parameters that all workers have in common, by name: read-only views or the model's own tensors.

        Under model averaging it is the reference point, the model after the last exchange; this is what a
        comparison evaluates. Under gradient averaging it is the model.
        """
        references = [channel.update.get("reference") for channel in self.channels]
        if any(reference is None for reference in references):
            parts = [local_part(param.detach()) for param in self._params]
            return dict(zip(self.layout.names, parts, strict=True))
        flat = [reference for reference in references if reference is not None]
        return self.layout.unflatten(flat[0] if len(flat) == 1 else torch.cat(flat))

    @property
    def is_paused(self) -> bool:
        """Whether an asynchronous server told this worker, at its last exchange, to stop for now."""
        paused = self.channels[0].exchange.get("paused")
        return paused is not None and bool(paused)

    def memory_norm(self) -> float:
        """``||m||_2`` of the residual, 0 without memory: the health of error feedback."""
        residuals = [channel.memory["residual"] for channel in self.channels if "residual" in channel.memory]
        return math.hypot(*(float(residual.norm()) for residual in residuals))

    def state_dict(self) -> dict[str, Any]:
        """Everything of this worker but the model and the optimizer: counters, and tensors by parameter name.

        Tensors may be views of the live state: save or clone them before the next step. The result can be saved
        with ``torch.save`` and loaded with ``weights_only=True``.
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
            "exchanged_at": list(self._exchanged_at),
            "leaves_at": self._leaves_at,
        }
        return {"counters": counters, "tensors": self._group.tensors() | self.agreement.tensors()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken; the bits are those of an uninterrupted run.

        Raises:
            ConfigError: the state is of another method, model, rank, seed or number of workers; nothing is changed.
        """
        counters, tensors = saved["counters"], saved["tensors"]
        own = {"method": repr(self.method), "rank": self.rank, "size": self.size, "seed": self._key.seed}
        check_same(counters, own, "worker")
        held = held_parameters(self.model, self.optimizer)
        names = counters.get("exchanged", self.layout.names)
        found = self._group
        if {*names} != {*self.layout.names} and {*names} <= {*held}:
            found = group(self.method, {name: held[name] for name in names}, self.rank, self.size, self._key)
        noticed = {name: tensor for name, tensor in tensors.items() if name.startswith("noticed.")}
        others = {name: tensor for name, tensor in tensors.items() if name not in noticed}
        parked = {name: tensor for name, tensor in others.items() if _is_parked(name, names, held)}
        live = {name: tensor for name, tensor in others.items() if name not in parked}
        load_tensors(found.channels, found.layout, live, counters["pending"])
        owed = {name: tensor.clone() for name, tensor in parked.items()}
        self._take(Grouped(found.layout, found.channels, owed), held)
        self.agreement.resume(counters.get("used", self.agreement.used), names, noticed)
        self._leaves_at = counters.get("leaves_at")
        self._exchanged_at = list(counters.get("exchanged_at", [-1] * len(self.channels)))
        self._stands = False
        self._lr = counters["lr"]
        self.union_density = counters["union_density"]
        self.num_steps = self._stepped.count = counters["num_steps"]
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
        own = named_tensors(self.channels, self.layout)
        for name, tensor in state["tensors"].items():
            if name in own and own[name].shape != tensor.shape and name.startswith("exchange."):
                raise no_meaning(name, len(saved))
        self.load_state_dict(state)
        flat = self.layout.flatten([params[name] for name in self.layout.names])
        pieces = torch.split(flat, [channel.layout.numel for channel in self.channels])
        for channel, piece in zip(self.channels, pieces, strict=True):
            channel.write_params(piece)
        self._exchanged_at = [self.num_steps] * len(self.channels)

    def _exchange(self, channel: Channel, x: Tensor, finite: bool) -> Steps[Outcome]:
        turn = self.num_exchanges // len(self.channels)
        is_watched = self.layer_report is not None and self.layer_report.is_due(turn, self.rank)
        compressor = self.method.compressor_at(turn)
        return (yield from channel.run(x, compressor, finite, self.num_exchanges, is_watched))

    def _accept(self, channel: Channel, outcome: Outcome) -> None:
        channel.accept(outcome)
        aggregate = outcome.aggregate
        if self.layer_report is not None:
            # A step that averages gradients is counted after its exchange, one that averages models before.
            step = self.num_steps + isinstance(self.method, GradientAveraging)
            self.layer_report.take(channel, outcome, step)
        self.num_exchanges += 1
        self.message_bytes += aggregate.message_bytes
        if self.counts_union:
            self.union_density = aggregate.num_nonzero() / max(channel.layout.numel, 1)

    def _notice_lr_drop(self) -> None:
        lr, before = largest_lr(self.optimizer), self._lr
        self._lr = lr
        if self.method.wipe_memory and lr < 0.5 * before:
            for channel in self.channels:
                channel.memory = self.method.memory.init(channel.layout.numel)
            self._group.parked.clear()


def _numerics_error(channel: Channel, outcome: Outcome, offence: str, what: str, step: int) -> NumericsError:
    views = channel.layout.unflatten(outcome.aggregate.mean)
    name = offence or next(name for name, view in views.items() if not torch.isfinite(view).all())
    return NumericsError(
        f"NaN or inf in the {what} of at least one worker, in {name!r}, found at step {step}; the "
        "exchange was not applied. Lower the learning rate, clip gradients, or look for bad input data"
    )


def _check_gradients(method: Method, optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor]) -> None:
    """Refuse what gradients cannot be averaged for."""
    if not isinstance(method, GradientAveraging):
        return
    if method.clip_norm is not None and any(local_part(param) is not param for param in named.values()):
        raise ConfigError(
            "clip_norm clips the norm of a whole gradient, and of sharded parameters a worker has only its shard; "
            "leave it out"
        )
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ConfigError(
            "SparseAdam takes sparse gradients only, and a mean of gradients is dense; take torch.optim.Adam or SGD, "
            "or a method that averages models, such as local-sgd:every=8"
        )


def _give_back(own: Sequence[tuple[Tensor, Tensor | None]]) -> None:
    """Put gradients where they were."""
    for param, grad in own:
        param.grad = None if grad is None else grad.clone()


def _is_parked(name: str, exchanged: Sequence[str], held: Mapping[str, Tensor]) -> bool:
    """Whether a tensor of a state is owed to a parameter that is not exchanged now."""
    return not name.startswith("pending.") and owner(name) in held and owner(name) not in exchanged


def _in_order(model: nn.Module) -> list[str]:
    return [plain_name(name) for name, _ in model.named_parameters()]


def can_share(method: Method, model: nn.Module) -> bool:
    """Whether workers of one process may share a model, see :meth:`Worker.beside`."""
    is_common = isinstance(method, GradientAveraging) and method.exchange.is_common
    return is_common and next(model.buffers(), None) is None


@dataclass(slots=True)
class _Counter:
    """How many steps the optimizer has made, for all workers that share it."""

    count: int = 0
