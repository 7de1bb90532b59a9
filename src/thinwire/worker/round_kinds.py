"""What rounds of model averaging and of gradient averaging do in their own ways; see :mod:`thinwire.worker.rounds`."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from thinwire.arrays import copy_of
from thinwire.errors import ConfigError
from thinwire.methods import ModelAveraging, Outer
from thinwire.steps import Steps
from thinwire.worker.averaging import GradientMeans, ModelMeans, Proposal
from thinwire.worker.optimizer_state import fill_optimizer, optimizer_state
from thinwire.worker.parameters import local_part
from thinwire.worker.worker import Worker

_COMMON = "update."
_PARAMETER, _OPTIMIZER = "parameter.", "optimizer."


class RoundKind(Protocol):
    """Of a worker that runs no exchanges by itself."""

    @property
    def precedes_step(self) -> bool:
        """Whether an exchange comes before the optimizer's own step, and is of the gradients of all workers."""
        ...

    def count_step(self) -> bool:
        """After the optimizer's own step; whether to exchange now."""
        ...

    def propose(self, skips: bool) -> Steps[Proposal]:
        """Exchange; nothing of it is remembered."""
        ...

    def accept(self, proposal: Proposal, at_once: bool) -> None:
        """It counts."""
        ...

    def common(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What all workers have in common: tensors by name, which may be views, and plain values beside counters."""
        ...

    def take(self, counters: Mapping[str, Any], tensors: Mapping[str, Tensor], keeps_drift: bool) -> None:
        """Have that in common too; see :meth:`thinwire.worker.rounds.Rounds.take_common`."""
        ...

    def drop_drift(self, place: int) -> None:
        """What a message of that channel had in it counted: it is not to be sent again."""
        ...

    def taking_back(self, proposal: Proposal) -> Callable[[], None] | None:
        """What lets that be sent again which was sent without a memory; None if nothing can."""
        ...


class ModelRounds:
    """Of models, after local steps.

    Args:
        worker: whose.
        method: its own, with an outer step.
    """

    precedes_step = False

    def __init__(self, worker: Worker, method: ModelAveraging) -> None:
        self._worker = worker
        self._method = method
        self._models = ModelMeans(method, worker.exchanged, worker.agreement, worker.runner)

    def count_step(self) -> bool:
        """Results that are due are applied."""
        self._worker.runner.num_steps += 1
        with torch.no_grad():
            is_due = self._models.is_due()
        self._worker.accept_values()
        return is_due

    def propose(self, skips: bool) -> Steps[Proposal]:
        """The fragment whose turn it is."""
        return self._models.propose()

    def accept(self, proposal: Proposal, at_once: bool) -> None:
        """Memory, counters, the common point and the parameters follow."""
        self._models.accept(proposal, 0 if at_once else self._method.delay)

    def follow(self, proposal: Proposal) -> None:
        """The common point moves, and the worker's own parameters as far."""
        channel, runner = proposal.channel, self._worker.runner
        reference = channel.update["reference"]
        before, own = copy_of(reference), channel.local()
        self._method.update.apply(proposal.outcome.aggregate, channel.local, channel.update)
        channel.write_params(own.add_(reference).sub_(before))
        self._worker.exchanged.stands = False
        runner.num_exchanges += 1
        runner.count(proposal.outcome)
        self._worker.agreement.let_go(runner.num_exchanges)

    @torch.no_grad()
    def common(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The common points and what the outer step keeps; results that wait to be applied are in them."""
        channels = self._worker.exchanged.channels
        present = [channel.update for channel in channels]
        try:
            for channel in channels:
                if channel.pending is not None:
                    channel.update = {name: copy_of(tensor) for name, tensor in channel.update.items()}
                    self._method.update.apply(channel.pending.aggregate, channel.local, channel.update)
            live = self._worker.exchanged.keeper.live()
        finally:
            for channel, update in zip(channels, present, strict=True):
                channel.update = update
        return {name: tensor for name, tensor in live.items() if name.startswith(_COMMON)}, {}

    def take(self, counters: Mapping[str, Any], tensors: Mapping[str, Tensor], keeps_drift: bool) -> None:
        """The common points move; the parameters as far, or to them."""
        exchanged = self._worker.exchanged
        live = exchanged.keeper.live()
        check_shapes({name: tensor for name, tensor in live.items() if name.startswith(_COMMON)}, tensors)
        drifts = [channel.update["reference"] - channel.local() for channel in exchanged.channels]
        exchanged.keeper.fill(tensors)
        for channel, drift in zip(exchanged.channels, drifts, strict=True):
            channel.pending = None
            reference = channel.update["reference"]
            channel.write_params(reference - drift if keeps_drift else reference)
        exchanged.stands = not keeps_drift and len(exchanged.channels) == 1
        exchanged.exchanged_at = [counters["num_steps"] - int(keeps_drift)] * len(exchanged.channels)

    def drop_drift(self, place: int) -> None:
        """The parameters are where the common point was."""
        channel = self._worker.channels[place]
        channel.write_params(channel.update["reference"])

    def taking_back(self, proposal: Proposal) -> Callable[[], None] | None:
        """The parameters will be as far from the common point as they were before."""
        if self._method.delay:
            return None
        place, channel = proposal.place, proposal.channel
        drift = channel.update["reference"] - channel.local()

        def put_back() -> None:
            present = self._worker.channels[place]
            present.write_params(present.local().sub_(drift))

        return put_back


class GradientRounds:
    """Of gradients, before every step: all have one model, and optimizers that keep the same.

    Args:
        worker: whose.
        gradients: its own exchanges of them.
    """

    precedes_step = True

    def __init__(self, worker: Worker, gradients: GradientMeans) -> None:
        self._worker = worker
        self._gradients = gradients

    def count_step(self) -> bool:
        """It was counted by :meth:`accept`."""
        self._worker.accept_values()
        return False

    def propose(self, skips: bool) -> Steps[Proposal]:
        """The gradients."""
        return self._gradients.propose(skips)

    def accept(self, proposal: Proposal, at_once: bool) -> None:
        """The memory follows, and the mean takes the gradients' place."""
        self._gradients.accept(proposal)

    def common(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The parameters and the optimizer's state."""
        worker = self._worker
        kept, numbers = optimizer_state(worker.model, worker.optimizer)
        own = {f"{_PARAMETER}{name}": local_part(each.detach()) for name, each in worker.parameters().items()}
        return own | {f"{_OPTIMIZER}{name}": tensor for name, tensor in kept.items()}, {"optimizer": numbers}

    def take(self, counters: Mapping[str, Any], tensors: Mapping[str, Tensor], keeps_drift: bool) -> None:
        """Parameters and optimizer; the gradients are of a model that nobody trains any more, so they become zeros."""
        worker = self._worker
        own = worker.parameters()
        params = {name: each for name, each in tensors.items() if name.startswith(_PARAMETER)}
        check_shapes({f"{_PARAMETER}{name}": local_part(each) for name, each in own.items()}, params)
        kept = {name.removeprefix(_OPTIMIZER): each for name, each in tensors.items() if name not in params}
        fill_optimizer(worker.model, worker.optimizer, kept, counters["optimizer"])
        for name, each in own.items():
            local_part(each.detach()).copy_(params[f"{_PARAMETER}{name}"])
            if each.grad is not None:
                each.grad.zero_()
        self._gradients.sharing.num_steps = counters["num_steps"]

    def drop_drift(self, place: int) -> None:
        """There is none."""

    def taking_back(self, proposal: Proposal) -> Callable[[], None] | None:
        """A gradient of a step that turned out not to be made is dropped: it is of a model that nobody has."""
        return _do_nothing


def _do_nothing() -> None:
    return


def check_shapes(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise :class:`ConfigError` unless they have the same names and shapes."""
    if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in given.items()}:
        raise ConfigError("the common state is of another model or method; all must train the same")


def kind_of(worker: Worker) -> RoundKind:
    """How the rounds of a worker go.

    Raises:
        ConfigError: its method has no common point that a mean moves.
    """
    method = worker.method
    if worker.gradients is not None:
        return GradientRounds(worker, worker.gradients)
    if isinstance(method, ModelAveraging) and method.states:
        raise ConfigError(
            f"{method} averages the optimizer's state, which cannot be proposed first; where exchanges may fail take a "
            "method that averages models alone, such as local-sgd or diloco"
        )
    if isinstance(method, ModelAveraging) and isinstance(method.update, Outer):
        return ModelRounds(worker, method)
    raise ConfigError(
        f"{method} was given where exchanges may fail; take a method with one mean for all workers, such as sgd, "
        "ef-sgd, local-sgd, diloco, qsparse or signtopk"
    )
