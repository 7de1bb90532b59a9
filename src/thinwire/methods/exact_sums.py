"""Exchanges of a method that are not like its others: exact means of whole vectors."""

from dataclasses import dataclass, replace

from thinwire.errors import ConfigError
from thinwire.exchanges.accumulating import Accumulating
from thinwire.layout import Layout
from thinwire.methods.base import GradientAveraging, Method, ModelAveraging
from thinwire.methods.fitting import fitted
from thinwire.methods.schedules import Schedule
from thinwire.methods.zero_one_adam import ZeroOneAdam

_WINDOW = 1 << 16


@dataclass(frozen=True, slots=True)
class ExactSums:
    """How often whole vectors are summed in f32, so many times a step in the long run.

    Args:
        beside: beside other exchanges: states of the optimizer that DES-LOC averages, gradients of which 0/1 Adam
            learns its variance if it never ends.
        instead: in place of other exchanges: MARINA's full rounds.
    """

    beside: float = 0.0
    instead: float = 0.0

    @property
    def per_step(self) -> float:
        """All of them."""
        return self.beside + self.instead


def apart(method: Method, layout: Layout) -> tuple[Method, ExactSums]:
    """The method without its warm-up and with one kind of exchange, and what it sums in full besides.

    So what a step takes and sends in the long run follows from one exchange of either kind.

    Raises:
        ConfigError: a method that does not fit the parameters.

    Example:
        >>> import torch
        >>> from thinwire.methods import parse_method
        >>> layout = Layout(("w",), (torch.Size([100]),))
        >>> apart(parse_method("des-loc:every=4,momentum=8,variance=16"), layout)[1]
        ExactSums(beside=0.1875, instead=0.0)
        >>> apart(parse_method("marina:density=25%"), layout)[1]
        ExactSums(beside=0.0, instead=0.25)
    """
    method = replace(method, warm_up=None)
    if isinstance(method, ModelAveraging) and method.states:
        return replace(method, states=()), ExactSums(beside=sum(1 / state.every for state in method.states))
    if isinstance(method, ModelAveraging) and isinstance(method.update, ZeroOneAdam):
        update = method.update
        learns = _due_per_step(update.variance) if update.freeze is None else 0.0
        return replace(method, update=replace(update, freeze=1)), ExactSums(beside=learns)
    exchange = method.exchange
    if isinstance(exchange, Accumulating) and exchange.restart is None:
        exchange = fitted(method, layout)[0].exchange
    if isinstance(exchange, Accumulating) and exchange.restart:
        sums = ExactSums(instead=exchange.restart * exchanges_per_step(method))
        return replace(method, exchange=replace(exchange, restart=0.0)), sums
    return method, ExactSums()


def exchanges_per_step(method: Method) -> float:
    """The share of the steps after which there is an exchange, in the long run; states of the optimizer do not count.

    Raises:
        ConfigError: next to none.

    Example:
        >>> from thinwire.methods import parse_method
        >>> exchanges_per_step(parse_method("local-sgd:every=8"))
        0.125
    """
    if isinstance(method, GradientAveraging):
        return 1.0
    return _due_per_step(method.schedule)


def _due_per_step(schedule: Schedule) -> float:
    due = [step for step in range(_WINDOW, 2 * _WINDOW) if schedule.due(step, 0)]
    if len(due) < 2:
        raise ConfigError(f"{schedule} has less than two exchanges in {_WINDOW} steps; give fewer local steps")
    return (len(due) - 1) / (due[-1] - due[0])
