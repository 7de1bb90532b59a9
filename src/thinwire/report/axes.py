"""How the figures of all pages are laid out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """An axis.

    Args:
        title: with the unit; plain text.
        logarithmic: whether equal steps are equal factors.
        is_bytes: labels are in kB, MB and so on.
        more: what plotly is told of the axis beside this.
    """

    title: str
    logarithmic: bool = True
    is_bytes: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


def layout(x: Scale, y: Scale, height: int = 380) -> dict[str, Any]:
    """A figure's layout in plain values; colours are the page's, see ``page.js``."""
    return {
        "font": {"size": 13}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "height": height,
        "margin": {"l": 60, "r": 20, "t": 16, "b": 56}, "showlegend": False, "hovermode": "closest",
        "xaxis": _axis(x), "yaxis": _axis(y),
    }  # fmt: skip


def _axis(scale: Scale) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "type": "log" if scale.logarithmic else "linear", "automargin": True, "zeroline": False,
        "title": {"text": escape(scale.title), "standoff": 10},
    }  # fmt: skip
    if scale.is_bytes:
        shape |= {"tickformat": "~s", "ticksuffix": "B"}  # SI prefixes are decimal, as our bytes are
    return {**shape, **scale.more}
