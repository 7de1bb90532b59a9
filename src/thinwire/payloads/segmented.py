"""What payloads with one scale a segment share."""

from torch import Tensor

from thinwire.layout import Segments


def per_entry(scales: Tensor, segments: Segments) -> Tensor:
    """Spread one number a segment over its entries: ``[count]`` to ``[numel]`` (or a ``[1]`` that broadcasts)."""
    if segments.count == 1:
        return scales
    offsets = segments.offsets()
    return scales.repeat_interleave(offsets.diff(), output_size=segments.numel)
