"""How the learning rate changes, and which average of the iterates is evaluated: strings of a comparison."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.config import read_share
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


def make_rates(text: str, num_steps: int) -> Rates:
    """Learning rates of a run of so many steps, from the name of a schedule and its options.

    ``constant``. ``inverse:shift=A`` is ``lr a / (a + t)``: with ``lr = 8 / (mu a)`` the ``8 / (mu (a + t))`` of the
    theorems, a the shift. ``bottou:decay=L`` is ``lr / (1 + lr decay t)``: the larger the first rate, the sooner it
    falls; ``decay`` is the L2 regularisation. ``drops:at=100/150,factor=0.1`` is ``lr factor^n``, n the number of
    drops so far, one after each number of steps in ``at``.

    ``cosine`` and ``linear`` go to their end with the run, and take ``warmup`` (a share of the run, or steps) and
    ``end`` (a share of lr, 0 unless given). In the W steps of the warm-up the rate is ``lr (t + 1) / W``; after them
    ``lr (end + (1 - end) f)`` with ``f = (1 + cos(pi p)) / 2`` or ``1 - p``, and ``p = (t - W) / (T - W)``
    (Loshchilov and Hutter 2017, eq. 5). An asynchronous worker that makes more than T steps keeps the last rate.

    Args:
        text: such as ``cosine:warmup=5%``.
        num_steps: T.

    Raises:
        ConfigError: an unknown name or option, a value out of range, or a warm-up as long as the run.

    Example:
        >>> make_rates("inverse:shift=100", 200).at(0.5, 100), make_rates("drops:at=10,factor=0.5", 20).at(0.5, 10)
        (0.25, 0.25)
        >>> rates = make_rates("linear:warmup=20%", 10)
        >>> [round(rates.at(0.8, step), 3) for step in range(10)]
        [0.4, 0.8, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    """
    what, annealed = "learning-rate schedule", dict.fromkeys(("cosine", "linear"), ("warmup", "end"))
    known: dict[str, tuple[str, ...]] = {
        "constant": (),
        "inverse": ("shift",),
        "bottou": ("decay",),
        "drops": ("at", "factor"),
    }
    name, rest = split_name(text, what, [*known, *annealed])
    if name in annealed:
        return _anneal(name, read_pairs(rest, name, annealed[name]), num_steps)
    given = _numbers(text, what, name, rest, known[name])
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


def _anneal(name: str, given: dict[str, str], num_steps: int) -> Rates:
    try:
        end = read_share(given.get("end", "0"))
        warmup = given.get("warmup", "0")
        num_warm = int(warmup) if warmup.isdecimal() else round(read_share(warmup) * num_steps)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    if not 0.0 <= end <= 1.0:
        raise ConfigError(f"{name}: end={given['end']} was given; it is a share of the first rate, from 0 to 100%")
    if not 0 <= num_warm < num_steps:
        raise ConfigError(
            f"{name}: warmup={warmup} is a warm-up of {num_warm} steps, and a run has {num_steps}, if it is one of the "
            "search; give a share of the run, such as warmup=5%"
        )

    def factor(step: int) -> float:
        if step < num_warm:
            return (step + 1) / num_warm
        p = (min(step, num_steps - 1) - num_warm) / (num_steps - num_warm)
        f = 0.5 * (1.0 + math.cos(math.pi * p)) if name == "cosine" else 1.0 - p
        return end + (1.0 - end) * f

    return Rates(lambda lr, step: lr * factor(step))


def make_average(text: str) -> RunningAverage | None:
    """An average from ``none``, ``uniform`` or ``quadratic:shift=A`` (weights ``(A + t)^2``).

    Raises:
        ConfigError: an unknown name or option, or a negative shift.

    Example:
        >>> make_average("none"), make_average("quadratic:shift=100")
        (None, RunningAverage(weights='quadratic', shift=100.0))
    """
    known: dict[str, tuple[str, ...]] = {"none": (), "uniform": (), "quadratic": ("shift",)}
    name, rest = split_name(text, "average", known)
    given = _numbers(text, "average", name, rest, known[name])
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


def _numbers(text: str, what: str, name: str, rest: str, options: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    """The numbers of each option of a name, all of which must be given."""
    given: dict[str, tuple[float, ...]] = {}
    for option, value in read_pairs(rest, name, options).items():
        try:
            given[option] = tuple(float(number) for number in value.split("/"))
        except ValueError:
            raise unreadable(name, option, value, "a number") from None
    if given.keys() != set(options):
        form = ":" + ",".join(f"{option}=NUMBER" for option in options) if options else ""
        raise ConfigError(f"the {what} {text} was given; write {name}{form}")
    return given


def _one(numbers: tuple[float, ...], text: str) -> float:
    if len(numbers) != 1:
        raise ConfigError(f"{text} has several numbers where one was expected")
    return numbers[0]
