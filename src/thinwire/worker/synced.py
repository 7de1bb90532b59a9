"""Averages of what the workers' optimizers remember."""

import copy
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import GradientAveraging, ModelAveraging, SyncedState
from thinwire.steps import Steps
from thinwire.worker.agreement import Agreement
from thinwire.worker.channel import Channel
from thinwire.worker.exchange_runner import ExchangeRunner
from thinwire.worker.exchanged import Exchanged
from thinwire.worker.parameters import local_part
from thinwire.worker.refusals import numerics_error

_EXACT = GradientAveraging()
"""An exact mean of vectors, of which nothing is remembered."""


@dataclass(slots=True, eq=False)
class StateMeans:
    """Averages tensors of the optimizer's state, each after its own number of local steps.

    They stay where the optimizer keeps them, which saves and loads them. A parameter that has made no step on a worker
    counts as zeros there, and gets no state by this.

    Args:
        method: which states, and when.
        optimizer: whose they are.
        exchanged: the parameters.
        agreement: with the other workers on what these are.
        runner: of the exchanges.

    Raises:
        ConfigError: the optimizer has no such state of any parameter.
    """

    method: ModelAveraging
    optimizer: torch.optim.Optimizer
    exchanged: Exchanged
    agreement: Agreement
    runner: ExchangeRunner
    _names: dict[int, frozenset[str]] = field(init=False)
    """Of the states of each parameter, by ``id()``."""
    _channels: dict[int, Channel] = field(init=False, default_factory=dict)
    """Of each state, for the parameters that have it at present."""

    def __post_init__(self) -> None:
        self._names = state_names(self.optimizer)
        known = sorted(frozenset().union(*self._names.values()))
        for state in self.method.states:
            if not set(state.names) & set(known):
                kept = f"of a parameter's shape it keeps {', '.join(known) or 'nothing'}"
                raise ConfigError(
                    f"{type(self.optimizer).__name__} has no {' or '.join(state.names)} to be averaged ({kept}); take "
                    "an optimizer that has, such as AdamW, or a method that leaves its state alone"
                )

    @torch.no_grad()
    def average(self) -> Steps[None]:
        """After a local step: average what is due.

        Raises:
            NumericsError: NaN or inf in the state of some worker: on every worker.
        """
        for number, state in enumerate(self.method.states):
            if state.due(self.runner.num_steps):
                yield from self._average(number, state)

    def _average(self, number: int, state: SyncedState) -> Steps[None]:
        runner = self.runner
        yield from self.agreement.begin(runner.seed, runner.size)
        places = self._places(state)
        channel = self._channel(number, places)
        tensors = [self._tensor(param, key) for param, key in places.values()]
        x, finite = channel.gather(tensors)
        outcome = yield from channel.run(x, _EXACT.compressor, finite, runner.num_steps // state.every)
        if not outcome.aggregate.finite:
            raise numerics_error(channel, outcome, "", f"optimizer's {state.names[0]}", runner.num_steps)
        runner.count(outcome)
        channel.write_result(outcome.aggregate, tensors)

    def _places(self, state: SyncedState) -> dict[str, tuple[Tensor, str]]:
        """The parameters that have such a state, or will have it after a step, and what it is called."""
        params = self.exchanged.parameters()
        if any(id(param) not in self._names for param in params.values()):
            self._names = state_names(self.optimizer)
        found = {}
        for name, param in params.items():
            key = next((key for key in state.names if key in self._names.get(id(param), ())), None)
            if key is not None:
                found[name] = param, key
        return found

    def _tensor(self, param: Tensor, key: str) -> Tensor:
        """The optimizer's own tensor, or zeros if there is none yet."""
        found = self.optimizer.state.get(param, {}).get(key)
        return local_part(torch.zeros_like(param) if found is None else found)

    def _channel(self, number: int, places: dict[str, tuple[Tensor, str]]) -> Channel:
        local = {name: local_part(param.detach()) for name, (param, _) in places.items()}
        layout, known, runner = Layout.of(local), self._channels.get(number), self.runner
        if known is None or known.layout != layout or (known.rank, known.size) != (runner.rank, runner.size):
            device = next((each.device for each in local.values()), CPU)
            key = self.exchanged.key.fold("state", number)
            known = self._channels[number] = Channel(_EXACT, layout, [], runner.rank, runner.size, key, device)
        known.sums_stay = self.exchanged.channels[0].sums_stay
        return known


def state_names(optimizer: torch.optim.Optimizer) -> dict[int, frozenset[str]]:
    """What an optimizer keeps, or will keep after a step, in a parameter's shape: names for each, by ``id()``.

    An optimizer that has made no step yet is tried, by a copy, on small parameters of as many dimensions.

    Raises:
        ConfigError: it cannot be tried.

    Example:
        >>> param = nn.Parameter(torch.zeros(3))
        >>> sorted(state_names(torch.optim.AdamW([param]))[id(param)])
        ['exp_avg', 'exp_avg_sq']
    """
    groups: list[dict[str, Any]] = optimizer.param_groups
    params = [param for group in groups for param in group["params"]]
    if all(optimizer.state.get(param) for param in params):
        return {id(param): _names(optimizer.state[param], local_part(param)) for param in params}
    twin = copy.copy(optimizer)
    twin.state = defaultdict(dict)
    twin.param_groups = [{**group, "params": [_stand_in(param) for param in group["params"]]} for group in groups]
    try:
        twin.step()
    except Exception as error:
        raise ConfigError(
            f"whether {type(optimizer).__name__} has a state to be averaged could not be tried ({error}); make a step "
            "with it before the worker is made, or take a method that leaves its state alone"
        ) from error
    tried = [param for group in twin.param_groups for param in group["params"]]
    return {id(param): _names(twin.state[small], small) for param, small in zip(params, tried, strict=True)}


def _names(state: dict[str, Any], like: Tensor) -> frozenset[str]:
    return frozenset(name for name, each in state.items() if isinstance(each, Tensor) and each.shape == like.shape)


def _stand_in(param: Tensor) -> nn.Parameter:
    small = nn.Parameter(torch.zeros([2] * param.ndim, dtype=param.dtype, device=param.device))
    small.grad = torch.zeros_like(small)
    return small
