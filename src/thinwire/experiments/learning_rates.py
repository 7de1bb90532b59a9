"""How the learning rate changes, and which average of the iterates is evaluated: strings of a comparison."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.layout import State
from thinwire.option_strings import read_pairs, split_name, unreadable
from thinwire.theory import RunningAverage


@dataclass(frozen=True, slots=True)
class Rates:
    """A learning rate for every step, in terms of the first one, which is searched for.

    Args:
        at: the rate, from the first one and the number of a step, counted from 0.
        shift: from the first rate, the a for which rates are in proportion to ``1 / (a + t)``; infinite for others.
    """

    at: Callable[[float, int], float]
    shift: Callable[[float], float] = lambda lr: math.inf


def make_rates(text: str) -> Rates:
    """Learning rates from ``constant``, ``inverse:shift=A``, ``bottou:decay=L`` or ``drops:at=100/150,factor=0.1``.

    ``inverse`` is ``lr a / (a + t)``: with ``lr = 8 / (mu a)`` the ``8 / (mu (a + t))`` of the theorems, a the shift.
    ``bottou`` is ``lr / (1 + lr decay t)``: the larger the first rate, the sooner it falls; ``decay`` is the L2
    regularisation. ``drops`` is ``lr factor^n``, n the number of drops so far, one after each number of steps in
    ``at``.

    Raises:
        ConfigError: an unknown name or option, or a value out of range.

    Example:
        >>> make_rates("inverse:shift=100").at(0.5, 100), make_rates("drops:at=10,factor=0.5").at(0.5, 10)
        (0.25, 0.25)
    """
    name, given = _read(text, "learning-rate schedule", {
        "constant": (), "inverse": ("shift",), "bottou": ("decay",), "drops": ("at", "factor"),
    })  # fmt: skip
    if not all(value > 0.0 for values in given.values() for value in values):
        raise ConfigError(f"the learning-rate schedule {text} has a number that is not above 0")
    drops = given.pop("at", ())
    number = _one(next(iter(given.values())), text) if given else 0.0
    match name:
        case "inverse":
            return Rates(lambda lr, step: lr * number / (number + step), shift=lambda lr: number)
        case "bottou":
            return Rates(lambda lr, step: lr / (1.0 + lr * number * step), shift=lambda lr: 1.0 / (lr * number))
        case "drops":
            return Rates(lambda lr, step: lr * number ** sum(step >= each for each in drops))
    return Rates(lambda lr, step: lr)


def make_average(text: str) -> RunningAverage | None:
    """An average from ``none``, ``uniform`` or ``quadratic:shift=A`` (weights ``(A + t)^2``).

    Raises:
        ConfigError: an unknown name or option, or a negative shift.

    Example:
        >>> make_average("none"), make_average("quadratic:shift=100")
        (None, RunningAverage(weights='quadratic', shift=100.0))
    """
    name, given = _read(text, "average", {"none": (), "uniform": (), "quadratic": ("shift",)})
    if name == "none":
        return None
    if name == "uniform":
        return RunningAverage(weights="uniform")
    return RunningAverage(weights="quadratic", shift=_one(given["shift"], text))


class Averager:
    """The weighted average of the common models at the beginning of every step: f64 tensors by parameter name.

    Args:
        average: the weights.
        initial: the common model before the first step.
    """

    def __init__(self, average: RunningAverage, initial: State) -> None:
        self._average = average
        self._mean = {name: tensor.detach().double() for name, tensor in initial.items()}

    @torch.no_grad()
    def take(self, step: int, shared: State) -> None:
        """The model before step ``step``, counted from 0, in order."""
        rho = self._average.rho(step)
        for name, mean in self._mean.items():
            mean.lerp_(shared[name].double(), rho)

    def parameters(self) -> dict[str, Tensor]:
        """The average as f32 tensors; the initial model before the first step."""
        return {name: mean.float() for name, mean in self._mean.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The average by parameter name; views of the live state."""
        return dict(self._mean)

    def load_state_dict(self, saved: State) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for name, mean in self._mean.items():
            mean.copy_(saved[name])


def _read(text: str, what: str, known: dict[str, tuple[str, ...]]) -> tuple[str, dict[str, tuple[float, ...]]]:
    """The name, and for each of its options its numbers, all of which must be given."""
    name, rest = split_name(text, what, known)
    given: dict[str, tuple[float, ...]] = {}
    for option, value in read_pairs(rest, name, known[name]).items():
        try:
            given[option] = tuple(float(number) for number in value.split("/"))
        except ValueError:
            raise unreadable(name, option, value, "a number") from None
    if given.keys() != set(known[name]):
        form = ":" + ",".join(f"{option}=NUMBER" for option in known[name]) if known[name] else ""
        raise ConfigError(f"the {what} {text} was given; write {name}{form}")
    return name, given


def _one(numbers: tuple[float, ...], text: str) -> float:
    if len(numbers) != 1:
        raise ConfigError(f"{text} has several numbers where one was expected")
    return numbers[0]
