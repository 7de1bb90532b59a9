"""An operator with all its parameters, and the segments of the vector for it."""

import dataclasses
from dataclasses import dataclass

from thinwire.compressors import Compressor, Traits, segment_traits
from thinwire.config import registered
from thinwire.layout import Chunks, Granularity, Segments, Whole


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
    """Every registered compressor, in the order of registration."""
    return tuple(cls for cls in registered().values() if is_compressor_class(cls))


def is_compressor_class(cls: type) -> bool:
    """Whether it offers ``compress`` and ``traits``."""
    return callable(getattr(cls, "compress", None)) and callable(getattr(cls, "traits", None))
