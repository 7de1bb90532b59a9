"""An operator with all its parameters, and the segments of the vector for it."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from thinwire.compressors import Compressor, Traits, segment_traits
from thinwire.config import registered
from thinwire.layout import Chunks, Granularity, Segments, Whole
from thinwire.plugins import load_parts


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a message is made with.

    Args:
        compressor: the operator.
        chunk: entries of the chunks that are compressed apart ("buckets"); all entries in one if not given.
    """

    compressor: Compressor
    chunk: int | None = None

    @property
    def operator(self) -> str:
        """Name of the outermost operator."""
        return type(self.compressor).__name__

    @property
    def granularity(self) -> Granularity:
        """The granularity, as methods take it."""
        return Whole() if self.chunk is None else Chunks(self.chunk)

    def segments(self, numel: int, count: int = 1) -> Segments:
        """The segments of ``count`` vectors of ``numel`` entries each, laid end to end."""
        length = numel if self.chunk is None else min(self.chunk, numel)
        if count == 1 or numel % length == 0:
            return Segments.uniform(count * numel, max(1, length))
        full, rest = divmod(numel, length)
        return Segments.of_sizes(([length] * full + [rest]) * count)

    def traits(self, numel: int) -> Traits:
        """What is proven for a vector of ``numel`` entries."""
        return segment_traits(self.compressor, self.segments(numel))

    def __str__(self) -> str:
        cut = "" if self.chunk is None else f" in chunks of {self.chunk}"
        return describe(self.compressor) + cut


def describe(value: object) -> str:
    """A compressor as Python writes it, without the fields that have their default value.

    Example:
        >>> from thinwire.compressors import QSGD, TopK
        >>> describe(TopK(density=0.01, values=QSGD(levels=7)))
        'TopK(density=0.01, values=QSGD(levels=7))'
    """
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        if isinstance(value, tuple):
            return "(" + ", ".join(describe(item) for item in value) + ("," if len(value) == 1 else "") + ")"
        return f"{value:.4g}" if isinstance(value, float) else repr(value)
    shown = []
    for field in dataclasses.fields(value):
        given = getattr(value, field.name)
        if given != field.default or field.default is dataclasses.MISSING:
            shown.append(f"{field.name}={describe(given)}")
    return f"{type(value).__name__}({', '.join(shown)})"


def compressor_classes() -> tuple[type, ...]:
    """Every registered compressor, of installed packages too, in order: what offers ``compress`` and ``traits``."""
    wanted = ("compress", "traits")
    load_parts()
    return tuple(cls for cls in registered().values() if all(callable(getattr(cls, name, None)) for name in wanted))


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a compressor's class.

    Args:
        name: its name.
        kind: its annotation.
        is_required: whether it must be given.
    """

    name: str
    kind: Any
    is_required: bool

    @property
    def is_nested(self) -> bool:
        """Whether it takes another compressor."""
        return self.kind is Compressor

    @property
    def takes(self) -> frozenset[Any]:
        """Its type, or the types that it may have."""
        return frozenset((self.kind, *get_args(self.kind)))

    @property
    def choices(self) -> tuple[Any, ...]:
        """All that it takes, of a switch or a named choice; else nothing."""
        if self.kind is bool:
            return (False, True)
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()


@functools.cache
def fields_of(cls: type) -> tuple[Field, ...]:
    """The fields of a compressor's class.

    Example:
        >>> from thinwire.compressors import Half
        >>> [field.choices for field in fields_of(Half)]
        [('bf16', 'f16'), ('nearest', 'stochastic')]
    """
    hints, none = get_type_hints(cls), dataclasses.MISSING
    return tuple(
        Field(field.name, hints[field.name], field.default is none and field.default_factory is none)
        for field in dataclasses.fields(cls)
    )
