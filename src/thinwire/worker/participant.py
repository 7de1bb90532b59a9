"""One participant: a model, an optimizer and a method, and the program that steps them."""

import math
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
from thinwire.worker.channel import Channel, Pending, make_channels
from thinwire.worker.state import check_same, load_tensors, named_tensors


class Worker:
    """Trains one replica; communicates only by what :meth:`step` yields.

    All workers must start from the same parameters. What is exchanged are the optimizer's parameters that need
    gradients; they are known by their names in the model, and so is every tensor of the state. A parameter that
    got no gradient counts as one with a zero gradient. Buffers are never exchanged.

    Args:
        method: what is exchanged, when and how.
        model: this worker's replica.
        optimizer: any ``torch.optim`` optimizer over parameters of ``model``.
        rank: this worker, 0 to ``size - 1``.
        size: number of workers.
        seed: the same on every worker; addresses all randomness of the exchanges.

    Raises:
        ConfigError: parameters that do not belong to the model, are not f32 or not on the CPU, or a method whose
            parts do not fit this model.

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
        self.rank = rank
        self.size = size
        self.num_steps = 0
        self.num_exchanges = 0
        self.message_bytes = 0
        if not 0 <= rank < size:
            raise ConfigError(f"rank {rank} of {size} workers was given; ranks go from 0 to size - 1")
        named = _trained_parameters(model, optimizer)
        self._num_optimized = _num_optimized(optimizer)
        self._params = list(named.values())
        self._key = Key(seed)
        self._lr = _largest_lr(optimizer)
        self.counts_union = False
        """Whether :attr:`union_density` is counted, in one pass over every mean."""
        self.union_density: float | None = None
        """The share of entries that are not 0 in the last mean: of a gather, what at least one worker has sent."""
        self.layout = Layout.of(named)
        self.channels = make_channels(method, named, rank, size, self._key)
        self._stepped = _Counter()

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
        return other

    @torch.no_grad()
    def step(self) -> Steps[None]:
        """The program of one training step; the gradients of the local batch must be in place.

        Raises:
            NumericsError: NaN or inf in what some worker would exchange; every worker raises at the same step,
                with its memory and the common model as they were before the exchange.
        """
        if _num_optimized(self.optimizer) != self._num_optimized:
            raise ConfigError("the optimizer has got other parameters since this worker was made; make a new worker")
        self._notice_lr_drop()
        if isinstance(self.method, GradientAveraging):
            yield from self._average_gradients(self.method)
            self.num_steps += 1
            return
        self.optimizer.step()
        self.num_steps += 1
        yield from self._average_models(self.method)

    def _average_gradients(self, method: GradientAveraging) -> Steps[None]:
        (channel,) = self.channels
        grads = _gradients(self._params)
        if method.clip_norm is not None:
            norm = torch.nn.utils.get_total_norm(grads)
            if torch.isfinite(norm):
                # The sum of P independent gradients is sqrt(P) times as long as one of them.
                longest = method.clip_norm / math.sqrt(self.size)
                torch.nn.utils.clip_grads_with_norm_(self._params, longest, norm)
        x, finite = channel.gather(grads)
        aggregate = yield from self._exchange(channel, x, finite, "gradient")
        if self._stepped.count == self.num_steps:  # else a worker beside this one has done it
            # Not those of above: workers beside this one have cleared them and made their own.
            channel.write(aggregate.mean, _gradients(self._params))
            self.optimizer.step()
            self._stepped.count += 1

    def _average_models(self, method: ModelAveraging) -> Steps[None]:
        for channel in self.channels:
            if channel.pending is not None and channel.pending.due <= self.num_steps:
                self._end_wait(channel, method, channel.pending)
        if not method.schedule.due(self.num_steps, self.rank):
            return
        channel = self.channels[self.num_exchanges % len(self.channels)]
        if channel.pending is not None:  # the next turn of a fragment ends the wait for the one before
            self._end_wait(channel, method, channel.pending)
        params, finite = channel.gather(channel.params)
        signal = method.update.signal(params, channel.update)
        aggregate = yield from self._exchange(channel, signal, finite, "model")
        if method.delay:
            channel.pending = Pending(aggregate, self.num_steps + method.delay)
        else:
            self._apply(channel, method, aggregate)

    def _end_wait(self, channel: Channel, method: ModelAveraging, pending: Pending) -> None:
        self._apply(channel, method, pending.aggregate)
        channel.pending = None

    def _apply(self, channel: Channel, method: ModelAveraging, aggregate: Aggregate) -> None:
        channel.write(method.update.apply(aggregate, channel.local, channel.update), channel.params)

    def shared_parameters(self) -> dict[str, Tensor]:
        """The parameters that all workers have in common, by name: read-only views or the model's own tensors.

        Under model averaging it is the reference point, the model after the last exchange; this is what a
        comparison evaluates. Under gradient averaging it is the model.
        """
        references = [channel.update.get("reference") for channel in self.channels]
        if any(reference is None for reference in references):
            return {name: param.detach() for name, param in zip(self.layout.names, self._params, strict=True)}
        parts = [reference for reference in references if reference is not None]
        return self.layout.unflatten(parts[0] if len(parts) == 1 else torch.cat(parts))

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
        }
        return {"counters": counters, "tensors": named_tensors(self.channels, self.layout)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken; the bits are those of an uninterrupted run.

        Raises:
            ConfigError: the state is of another method, model, rank, seed or number of workers; nothing is changed.
        """
        counters, tensors = saved["counters"], saved["tensors"]
        own = {"method": repr(self.method), "rank": self.rank, "size": self.size, "seed": self._key.seed}
        check_same(counters, own, "worker")
        load_tensors(self.channels, self.layout, tensors, counters["pending"])
        self._lr = counters["lr"]
        self.union_density = counters["union_density"]
        self.num_steps = self._stepped.count = counters["num_steps"]
        self.num_exchanges = counters["num_exchanges"]
        self.message_bytes = counters["message_bytes"]

    def _exchange(self, channel: Channel, x: Tensor, finite: bool, what: str) -> Steps[Aggregate]:
        compressor = self.method.compressor_at(self.num_exchanges // len(self.channels))
        outcome = yield from channel.run(x, compressor, finite, self.num_exchanges)
        aggregate = outcome.aggregate
        if not aggregate.finite:
            raise self._numerics_error(channel, aggregate.mean, what)
        channel.accept(outcome)
        self.num_exchanges += 1
        self.message_bytes += aggregate.message_bytes
        if self.counts_union:
            self.union_density = int(aggregate.mean.count_nonzero()) / max(aggregate.mean.numel(), 1)
        return aggregate

    def _notice_lr_drop(self) -> None:
        lr, before = _largest_lr(self.optimizer), self._lr
        self._lr = lr
        if self.method.wipe_memory and lr < 0.5 * before:
            for channel in self.channels:
                channel.memory = self.method.memory.init(channel.layout.numel)

    def _numerics_error(self, channel: Channel, mean: Tensor, what: str) -> NumericsError:
        views = channel.layout.unflatten(mean)
        name = next(name for name, view in views.items() if not torch.isfinite(view).all())
        step = self.num_steps + 1 if isinstance(self.method, GradientAveraging) else self.num_steps
        return NumericsError(
            f"NaN or inf in the {what} of at least one worker, in {name!r}, found at step {step}; the "
            "exchange was not applied. Lower the learning rate, clip gradients, or look for bad input data"
        )


def can_share(method: Method, model: nn.Module) -> bool:
    """Whether workers of one process may share a model, see :meth:`Worker.beside`."""
    is_common = isinstance(method, GradientAveraging) and method.exchange.is_common
    return is_common and next(model.buffers(), None) is None


@dataclass(slots=True)
class _Counter:
    """How many steps the optimizer has made, for all workers that share it."""

    count: int = 0


def _num_optimized(optimizer: torch.optim.Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)


def _largest_lr(optimizer: torch.optim.Optimizer) -> float:
    return max((float(group.get("lr", 0.0)) for group in optimizer.param_groups), default=0.0)


def _gradients(params: Sequence[Tensor]) -> list[Tensor]:
    """Every parameter's gradient; one that got none is given zeros."""
    for param in params:
        if param.grad is None:
            param.grad = torch.zeros_like(param)
    return [param.grad for param in params if param.grad is not None]


def _trained_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's parameters that need gradients, by their name in the model, in the model's order."""
    optimized = {id(param) for group in optimizer.param_groups for param in group["params"]}
    found = {name: param for name, param in model.named_parameters() if id(param) in optimized}
    if len(found) != len(optimized):
        raise ConfigError(
            f"{len(optimized) - len(found)} of the optimizer's {len(optimized)} parameters are not parameters of the "
            "model; build the optimizer from model.parameters() of the same model"
        )
    named: dict[str, Tensor] = {name: param for name, param in found.items() if param.requires_grad}
    if not named:
        raise ConfigError("none of the optimizer's parameters needs a gradient; there is nothing to train")
    for name, param in named.items():
        if param.dtype != torch.float32 or param.device.type != "cpu":
            raise ConfigError(
                f"parameter {name!r} is {param.dtype} on {param.device}; this version trains float32 models on the CPU"
            )
    return named
