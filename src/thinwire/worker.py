"""One participant: a model, an optimizer and a method, and the program that steps them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.compressors import Traits
from thinwire.errors import ConfigError, NumericsError
from thinwire.exchanges import Aggregate, Context
from thinwire.kernels.buffers import zeros
from thinwire.kernels.flatten import flatten_finite
from thinwire.layout import Layout, Segments, views_like
from thinwire.memory import Remembering, State
from thinwire.methods import GradientAveraging, Method, ModelAveraging, check_method
from thinwire.payloads import Dense, Sparse
from thinwire.random import Key
from thinwire.steps import Steps
from thinwire.wire import max_num_bytes


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
        self.layout = Layout.of(named)
        self._segments = check_method(method, self.layout)
        self._max_num_bytes = max(
            max_num_bytes(each.outline(self._segments)) for each in (method.compressor, _Poison())
        )
        self._key = Key(seed)
        self._flat = zeros(self.layout.numel)
        self._viewed: tuple[Tensor, list[Tensor]] = (self._flat, [])
        self._memory: State = method.memory.init(self.layout.numel)
        self._update: State = {}
        if isinstance(method, ModelAveraging):
            self._update = method.update.init(self.layout.flatten(self._params, self._flat))

    @torch.no_grad()
    def step(self) -> Steps[None]:
        """The program of one training step; the gradients of the local batch must be in place.

        Raises:
            NumericsError: NaN or inf in what some worker would exchange; every worker raises at the same step,
                with its memory and the common model as they were before the exchange.
        """
        if _num_optimized(self.optimizer) != self._num_optimized:
            raise ConfigError("the optimizer has got other parameters since this worker was made; make a new worker")
        if isinstance(self.method, GradientAveraging):
            finite = flatten_finite(
                [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._params], self._flat
            )
            aggregate = yield from self._exchange(self._flat, finite, "gradient")
            self._set_gradients(aggregate.mean)
            self.optimizer.step()
            self.num_steps += 1
            return
        self.optimizer.step()
        self.num_steps += 1
        if self.method.schedule.due(self.num_steps, self.rank):
            finite = flatten_finite(self._params, self._flat)
            signal = self.method.update.signal(self._flat, self._update)
            aggregate = yield from self._exchange(signal, finite, "model")
            self._set_parameters(self.method.update.apply(aggregate.mean, self._update))

    def shared_parameters(self) -> dict[str, Tensor]:
        """The parameters that all workers have in common, by name: read-only views or the model's own tensors.

        Under model averaging it is the reference point, the model after the last exchange; this is what a
        comparison evaluates. Under gradient averaging it is the model.
        """
        reference = self._update.get("reference")
        if reference is None:
            return {name: param.detach() for name, param in zip(self.layout.names, self._params, strict=True)}
        return self.layout.unflatten(reference)

    def memory_norm(self) -> float:
        """``||m||_2`` of the residual, 0 without memory: the health of error feedback."""
        residual = self._memory.get("residual")
        return 0.0 if residual is None else float(residual.norm())

    def state_dict(self) -> dict[str, Any]:
        """Everything of this worker but the model and the optimizer: counters, and tensors by parameter name.

        Tensors are views of the live state: save or clone them before the next step. The result can be saved
        with ``torch.save`` and loaded with ``weights_only=True``.
        """
        tensors = {
            f"{part}.{kind}.{name}": view
            for part, state in (("memory", self._memory), ("update", self._update))
            for kind, flat in state.items()
            for name, view in self.layout.unflatten(flat).items()
        }
        counters = {
            "num_steps": self.num_steps,
            "num_exchanges": self.num_exchanges,
            "message_bytes": self.message_bytes,
            "rank": self.rank,
            "size": self.size,
            "seed": self._key.seed,
            "method": repr(self.method),
        }
        return {"counters": counters, "tensors": tensors}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken; the bits are those of an uninterrupted run.

        Raises:
            ConfigError: the state is of another method, model, rank, seed or number of workers; nothing is changed.
        """
        counters, tensors = saved["counters"], saved["tensors"]
        current = self.state_dict()
        for name in ("method", "rank", "size", "seed"):
            given, mine = counters[name], current["counters"][name]
            if given != mine:
                raise ConfigError(f"the saved state is of {name} {given}, but this worker has {name} {mine}")
        own = current["tensors"]
        if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
            differing = sorted(own.keys() ^ tensors.keys()) or [n for n in own if own[n].shape != tensors[n].shape]
            raise ConfigError(
                f"the saved state is of another model: it differs in {', '.join(differing[:3])}"
                f"{' and others' if len(differing) > 3 else ''}"
            )
        for name, view in own.items():
            view.copy_(tensors[name])
        self.num_steps = counters["num_steps"]
        self.num_exchanges = counters["num_exchanges"]
        self.message_bytes = counters["message_bytes"]

    def _exchange(self, x: Tensor, finite: bool, what: str) -> Steps[Aggregate]:
        key = self._key.fold("exchange", self.num_exchanges, "rank", self.rank)
        ctx = Context(self.rank, self.size, key, self._segments, self._max_num_bytes)
        # A worker that left the exchange would leave the others waiting: it takes part with the offending entry,
        # which makes the mean non-finite, so that every worker raises at the same step.
        remembering = Remembering(self.method.compressor, self.method.memory, self._memory)
        aggregate = yield from self.method.exchange.run(x, remembering if finite else _Poison(), ctx)
        if not aggregate.finite:
            raise self._numerics_error(aggregate.mean, what)
        self._remember(x, remembering.next_state)
        self.num_exchanges += 1
        self.message_bytes += aggregate.message_bytes
        return aggregate

    def _remember(self, x: Tensor, state: State) -> None:
        """Take the next state of the memory; if ``x`` is part of it, gather into a tensor that is free from now on."""
        if any(tensor is x for tensor in state.values()):
            free = [old for old in self._memory.values() if not any(tensor is old for tensor in state.values())]
            self._flat = free[0] if free else zeros(x.numel())
        self._memory = state

    def _numerics_error(self, mean: Tensor, what: str) -> NumericsError:
        views = self.layout.unflatten(mean)
        name = next(name for name, view in views.items() if not torch.isfinite(view).all())
        step = self.num_steps + 1 if isinstance(self.method, GradientAveraging) else self.num_steps
        return NumericsError(
            f"NaN or inf in the {what} of at least one worker, in {name!r}, found at step {step}; the "
            "exchange was not applied. Lower the learning rate, clip gradients, or look for bad input data"
        )

    def _set_gradients(self, mean: Tensor) -> None:
        grads = []
        for param in self._params:
            if param.grad is None:
                param.grad = torch.empty_like(param)
            grads.append(param.grad)
        torch._foreach_copy_(grads, views_like(mean, grads))

    def _set_parameters(self, flat: Tensor) -> None:
        # Under model averaging this is the reference, the same tensor every time.
        if self._viewed[0] is not flat:
            self._viewed = (flat, views_like(flat, self._params))
        torch._foreach_copy_(self._params, self._viewed[1])


@dataclass(frozen=True, slots=True)
class _Poison:
    """Sends the first non-finite entry of a vector that must not be compressed."""

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sparse:
        first = torch.isfinite(x).logical_not().nonzero()[0]
        return Sparse(x.numel(), first, Dense(x[first]))

    def outline(self, segments: Segments) -> Sparse:
        index = torch.empty(min(1, segments.numel), dtype=torch.int64, device="meta")
        return Sparse(segments.numel, index, Dense(torch.empty(index.numel(), device="meta")))

    def traits(self, numel: int) -> Traits:
        return Traits(unbiased=False, error=math.inf)


def _num_optimized(optimizer: torch.optim.Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)


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
