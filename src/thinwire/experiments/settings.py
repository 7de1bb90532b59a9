"""What is searched for every method before it is compared: the optimizer, options of the method, the learning rate."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from thinwire.errors import ConfigError
from thinwire.experiments.optimizers import is_adaptive
from thinwire.methods import find_row
from thinwire.option_strings import read_pairs


@dataclass(frozen=True, slots=True)
class Setting:
    """What a search may choose for a method.

    Args:
        optimizer: see :func:`thinwire.experiments.optimizers.make_optimizer`.
        options: of the method, beside those that were asked for, such as ``gamma=0.1``; empty for none.
        lr: the learning rate.
    """

    optimizer: str
    options: str
    lr: float


@dataclass(frozen=True, slots=True)
class TunedOption:
    """Values to try for an option of a method of the catalog, unless the user gave it.

    Example:
        >>> TunedOption.parse("choco.gamma=0.05,0.1")
        TunedOption(row='choco', option='gamma', values=('0.05', '0.1'))
    """

    row: str
    option: str
    values: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> "TunedOption":
        """From ``METHOD.OPTION=VALUE,VALUE``.

        Raises:
            ConfigError: it cannot be read, or there is no such method or option.
        """
        match = re.fullmatch(r"\s*([\w-]+)\.(\w+)\s*=\s*([^=]+)", text)
        if match is None:
            raise ConfigError(
                f"--tune {text} cannot be read; write METHOD.OPTION=VALUE,VALUE as in choco.gamma=0.1,0.3"
            )
        row, option, values = match[1], match[2], tuple(value.strip() for value in match[3].split(","))
        read_pairs(f"{option}={values[0]}", row, find_row(row).options)
        if len(set(values)) < len(values) or "" in values:
            raise ConfigError(f"--tune {text} has a value twice, or none; each is tried once")
        return TunedOption(row, option, values)


def with_options(method: str, options: str) -> str:
    """The method string with further options.

    Example:
        >>> with_options("choco", "gamma=0.1"), with_options("choco:graph=ring", "gamma=0.1"), with_options("sgd", "")
        ('choco:gamma=0.1', 'choco:graph=ring,gamma=0.1', 'sgd')
    """
    return f"{method}{',' if ':' in method else ':'}{options}" if options else method


def option_choices(method: str, tuned: Sequence[TunedOption]) -> list[str]:
    """Every combination of the tuned options that ``method`` has and that the user left open; one, empty, if none is.

    Example:
        >>> gamma = TunedOption.parse("choco.gamma=0.05,0.1")
        >>> option_choices("choco", [gamma]), option_choices("choco:gamma=1", [gamma]), option_choices("sgd", [gamma])
        (['gamma=0.05', 'gamma=0.1'], [''], [''])
    """
    name, _, given = method.partition(":")
    asked = {part.partition("=")[0].strip() for part in given.split(",")}
    open_ones = [each for each in tuned if each.row == name.strip() and each.option not in asked]
    pairs = [[f"{each.option}={value}" for value in each.values] for each in open_ones]
    return [",".join(chosen) for chosen in itertools.product(*pairs)]


def rates_for(optimizer: str, lrs: tuple[float, ...], adaptive_lrs: tuple[float, ...]) -> tuple[float, ...]:
    """The grid of an optimizer: what Adam and its kin multiply has another scale than a gradient.

    Example:
        >>> rates_for("adamw:betas=0.9/0.95", (0.1, 1.0), (0.001, 0.003))
        (0.001, 0.003)
    """
    return adaptive_lrs if adaptive_lrs and is_adaptive(optimizer) else lrs


def read_codec(text: str) -> float:
    """By what the measured time is multiplied: 0 for ``free``, 1 for ``measured``, 2.5 for ``2.5x``.

    Raises:
        ConfigError: something else.

    Example:
        >>> read_codec("free"), read_codec("measured"), read_codec("2x")
        (0.0, 1.0, 2.0)
    """
    known = {"free": 0.0, "measured": 1.0}
    if text in known:
        return known[text]
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)x", text)
    if match is None:
        raise ConfigError(f"codec {text} cannot be read; give measured, free, or a multiple of what is measured: 2x")
    return float(match[1])
