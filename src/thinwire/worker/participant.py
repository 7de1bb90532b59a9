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
from thinwire.worker.channel import Channel, Outcome, Pending, make_channels
from thinwire.worker.local_steps import check_local_steps
from thinwire.worker.observing import LayerReport
from thinwire.worker.parameters import (
    check_in_place,
    gradients,
    largest_lr,
    local_part,
    num_optimized,
    trained_parameters,
)
from thinwire.worker.resize import no_meaning, resized
from thinwire.worker.state import check_same, load_tensors, named_tensors


class Worker:
    """Trains one replica; communicates only by what :meth:`step` yields.

    All workers must start from the same parameters. What is exchanged are the optimizer's parameters that need
    gradients; they are known by their names in the model, and so is every tensor of the state. A parameter that
    got no gradient counts as one with a zero gradient. Buffers are never exchanged. Of a sharded parameter (DTensor)
    each worker exchanges its local shard. What is exchanged is float32, also of parameters with fewer bits: what a
    mean loses when it is written to such parameters is kept and counted in at the next exchange.

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
        self.rank = rank
        self.size = size
        self.num_steps = 0
        self.num_exchanges = 0
        self.message_bytes = 0
        if not 0 <= rank < size:
            raise ConfigError(f"rank {rank} of {size} workers was given; ranks go from 0 to size - 1")
        check_local_steps(method, optimizer, size)
        named = trained_parameters(model, optimizer)
        self._num_optimized = num_optimized(optimizer)
        self._params = list(named.values())
        self._key = Key(seed)
        self._lr = largest_lr(optimizer)
        self.layer_report: LayerReport | None = None
        """What is told how each parameter fared, in exchanges that it samples."""
        self.counts_union = False
        """Whether :attr:`union_density` is counted, in one pass over every mean."""
        self.union_density: float | None = None
        """The share of entries that are not 0 in the last mean: of a gather, what at least one worker has sent."""
        is_sharded = any(local_part(param) is not param for param in named.values())
        if is_sharded and isinstance(method, GradientAveraging) and method.clip_norm is not None:
            raise ConfigError(
                "clip_norm clips the norm of a whole gradient, and of sharded parameters a worker has only its shard; "
                "leave it out"
            )
        local = {name: local_part(param) for name, param in named.items()}
        self.layout = Layout.of(local)
        self.channels = make_channels(method, local, rank, size, self._key)
        # Views are held of what is sharded or cut, and they must stay views.
        viewed = is_sharded or len(self.channels) > 1
        self._viewed = self._params if viewed else []
        self._addresses = [local_part(param).data_ptr() for param in self._viewed]
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

    def step(self) -> Steps[None]:
        """The program of one training step; the gradients of the local batch must be in place.

        Raises:
            NumericsError: NaN or inf in what some worker would exchange; every worker raises at the same step,
                with its memory and the common model as they were before the exchange.
        """
        if (yield from self.before_step()):
            self.optimizer.step()
        if isinstance(self.method, ModelAveraging):
            yield from self.after_step()

    def before_step(self, skips: bool = False) -> Steps[bool]:
        """What comes before the optimizer's own step; whether it is to be made.

        Args:
            skips: under a loss scale that is being searched, gradients that are not finite on some worker mean that no
                worker steps, and nothing is remembered; else they are an error.

        Raises:
            NumericsError: NaN or inf in the gradient of some worker, unless ``skips``.
        """
        if num_optimized(self.optimizer) != self._num_optimized:
            raise ConfigError("the optimizer has got other parameters since this worker was made; make a new worker")
        check_in_place(self._viewed, self._addresses)
        self._notice_lr_drop()
        if isinstance(self.method, ModelAveraging):
            return True
        return (yield from self._average_gradients(self.method, skips))

    @torch.no_grad()
    def _average_gradients(self, method: GradientAveraging, skips: bool) -> Steps[bool]:
        (channel,) = self.channels
        outcome = yield from self._exchange(channel, *self._clipped_gradient(channel, method))
        if not outcome.aggregate.finite:
            if skips:
                return False
            raise self._numerics_error(channel, outcome.aggregate.mean, "gradient", self.num_steps + 1)
        self._accept(channel, outcome)
        is_first = self._stepped.count == self.num_steps  # else a worker beside this one has done it
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
            yield from self._average_models(self.method)

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
        if not method.schedule.due(self.num_steps, self.rank):
            return
        channel = self.channels[self.num_exchanges % len(self.channels)]
        if channel.pending is not None:  # the next turn of a fragment ends the wait for the one before
            self._end_wait(channel, method, channel.pending)
        params, finite = channel.gather_params()
        signal = method.update.signal(params, channel.update)
        outcome = yield from self._exchange(channel, signal, finite)
        aggregate = outcome.aggregate
        if not aggregate.finite:
            raise self._numerics_error(channel, aggregate.mean, "model", self.num_steps)
        self._accept(channel, outcome)
        if method.delay:
            channel.pending = Pending(aggregate, self.num_steps + method.delay)
        else:
            self._apply(channel, method, aggregate)

    def _end_wait(self, channel: Channel, method: ModelAveraging, pending: Pending) -> None:
        self._apply(channel, method, pending.aggregate)
        channel.pending = None

    def _apply(self, channel: Channel, method: ModelAveraging, aggregate: Aggregate) -> None:
        channel.write_params(method.update.apply(aggregate, channel.local, channel.update))

    def parameters(self) -> dict[str, Tensor]:
        """What is trained, by name."""
        return dict(zip(self.layout.names, self._params, strict=True))

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

    def _numerics_error(self, channel: Channel, mean: Tensor, what: str, step: int) -> NumericsError:
        views = channel.layout.unflatten(mean)
        name = next(name for name, view in views.items() if not torch.isfinite(view).all())
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
