"""A method is a frozen product of choices."""

from dataclasses import dataclass
from typing import TypeAlias

import torch

from thinwire.compressors import Compressor, Identity, segment_traits
from thinwire.config import register
from thinwire.errors import ConfigError
from thinwire.exchanges import AllReduce, Exchange
from thinwire.layout import Granularity, Layout, Segments, Whole
from thinwire.memory import Memory, NoMemory
from thinwire.methods.schedules import Every, Schedule
from thinwire.methods.updates import Outer, Update
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class GradientAveraging:
    """Every step the workers' gradients are compressed and averaged, then the optimizer steps with the mean.

    The memory, if any, is in units of a gradient. With the defaults this is plain data-parallel SGD.

    Raises:
        ConfigError: a part of the wrong kind, or an exchange that adds messages before they are decoded with a
            compressor that is not linear.
    """

    memory: Memory = NoMemory()
    compressor: Compressor = Identity()
    exchange: Exchange = AllReduce()
    granularity: Granularity = Whole()

    def __post_init__(self) -> None:
        _check_parts(self.memory, self.compressor, self.exchange, self.granularity)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAveraging:
    """Workers step on their own; when the schedule says so their displacements are compressed and averaged.

    The memory is in units of the parameters: learning rates, momentum and local steps are all inside. With a
    sparsifier, a quantizer and error feedback this is Qsparse-local-SGD (Basu et al. 2019, Alg. 1).

    Raises:
        ConfigError: a part of the wrong kind, or an exchange that adds messages before they are decoded with a
            compressor that is not linear.
    """

    schedule: Schedule = Every()
    memory: Memory = NoMemory()
    compressor: Compressor = Identity()
    exchange: Exchange = AllReduce()
    granularity: Granularity = Whole()
    update: Update = Outer()

    def __post_init__(self) -> None:
        _check_parts(self.memory, self.compressor, self.exchange, self.granularity)
        _check_kind("schedule", self.schedule, Schedule)
        _check_kind("update", self.update, Update)


Method: TypeAlias = GradientAveraging | ModelAveraging


def check_method(method: Method, layout: Layout) -> Segments:
    """The cut of the model's vector, once it is sure that the method's parts fit together on it.

    Raises:
        ConfigError: error feedback over an operator whose error is 1 or more on a segment of this model, or
            a part that refuses a vector of this length (more entries to keep than there are).
    """
    segments = method.granularity.segments(layout)
    # A trial on zeros lets every part refuse the size on its own terms, before any training.
    method.compressor.compress(torch.zeros(layout.numel), Key(0), segments)
    error = segment_traits(method.compressor, segments).error
    if method.memory.needs_contraction and error >= 1.0:
        raise ConfigError(
            f"{method.compressor} is not a contraction on segments of {max(segments.distinct_sizes())} entries: "
            f"its error constant is {error:.3g}, and error feedback needs less than 1 or its memory may grow without "
            "bound. Use the scaled form (scaled=yes), more levels, smaller segments, or no memory"
        )
    return segments


def _check_kind(field: str, part: object, kind: type) -> None:
    if isinstance(part, type) or not isinstance(part, kind):
        raise ConfigError(f"{field} = {part!r} was given; it must be an instance that satisfies {kind.__name__}")


def _check_parts(memory: Memory, compressor: Compressor, exchange: Exchange, granularity: Granularity) -> None:
    _check_kind("memory", memory, Memory)
    _check_kind("compressor", compressor, Compressor)
    _check_kind("exchange", exchange, Exchange)
    _check_kind("granularity", granularity, Granularity)
    if exchange.needs_linear and not compressor.traits(2).linear:
        raise ConfigError(
            f"{type(exchange).__name__} adds messages before they are decoded, which {compressor} does not allow; "
            "use exchange=gather or exchange=server"
        )
