"""What a configuration is made of."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

Part: TypeAlias = Literal["quantize", "sparsify", "low rank", "local steps"]
COMBINED: tuple[Part, ...] = ("quantize", "sparsify", "local steps")
"""What is combined: each alone, in pairs, and all three."""


def parts_name(parts: Sequence[str]) -> str:
    """What configurations of these parts are called.

    Example:
        >>> parts_name(()), parts_name(("quantize", "sparsify")), parts_name(COMBINED)
        ('dense', 'quantize + sparsify', 'all three')
    """
    if tuple(parts) == COMBINED:
        return "all three"
    return " + ".join(parts) or "dense"
