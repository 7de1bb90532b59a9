"""How a method is drawn: one colour and dash, the same in every figure, chip and table."""

from dataclasses import dataclass

# Okabe and Ito's colour-blind-safe hues, darkened for white paper and lightened for a dark page; the first is
# ink, for the baseline most comparisons begin with. Eight more follow, for pages of many operators.
_LIGHT = (
    "#33383f", "#0072b2", "#d55e00", "#00845f", "#b0447f", "#b07d00", "#3a9bd6", "#6a4bc4",
    "#9c1c1c", "#5f8a00", "#007a8c", "#a64ddb", "#7a5230", "#e0457b", "#5a6b8c", "#1aa38f",
)  # fmt: skip
_DARK = (
    "#d8dce2", "#4da6e8", "#ff8b45", "#2fc79c", "#e58fc0", "#e8b93e", "#9ad4f8", "#a996f5",
    "#ff7f76", "#b2d65a", "#5ccfe0", "#d7a3ff", "#cda27c", "#ff9cbd", "#aab8d6", "#74e6d2",
)  # fmt: skip
_DASHES = (("solid", ""), ("dash", "7 4"), ("dot", "2 3"), ("dashdot", "8 3 2 3"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LineStyle:
    """One way to draw a line.

    Args:
        light: the colour on a light page.
        dark: the colour on a dark page.
        dash: plotly's name of the dash.
        svg_dash: the same as an SVG ``stroke-dasharray``.
    """

    light: str
    dark: str
    dash: str
    svg_dash: str


def line_style(slot: int) -> LineStyle:
    """The style of the method at index ``slot``; 64 differ, then they repeat."""
    # Shifted by one per round of colours, so that slots of one colour differ in dash.
    dash, svg_dash = _DASHES[(slot + slot // len(_LIGHT)) % len(_DASHES)]
    colour = slot % len(_LIGHT)
    return LineStyle(light=_LIGHT[colour], dark=_DARK[colour], dash=dash, svg_dash=svg_dash)


def palette_css(num_methods: int, dark: bool) -> str:
    """CSS variables ``--m0``, ``--m1``, ... with the colour of every method."""
    styles = [line_style(slot) for slot in range(num_methods)]
    return "".join(f"--m{slot}:{s.dark if dark else s.light};" for slot, s in enumerate(styles))


def swatch(slot: int) -> str:
    """An inline SVG of the line, coloured by the page's theme."""
    return (
        '<svg class="swatch" viewBox="0 0 34 10" width="34" height="10" aria-hidden="true">'
        f'<line x1="1" y1="5" x2="33" y2="5" stroke="var(--m{slot})" stroke-width="2.6" '
        f'stroke-dasharray="{line_style(slot).svg_dash}"/></svg>'
    )


SHAPES = {
    "circle": '<circle cx="8" cy="8" r="5"/>',
    "square": '<path d="M3.5 3.5h9v9h-9z"/>',
    "diamond": '<path d="M8 1.8 14.2 8 8 14.2 1.8 8z"/>',
    "triangle-up": '<path d="M8 2.5 14 13H2z"/>',
    "triangle-down": '<path d="M8 13.5 14 3H2z"/>',
    "cross": '<path d="M6 2h4v4h4v4h-4v4H6v-4H2V6h4z"/>',
    "x": '<path d="M4.6 1.8 8 5.2l3.4-3.4 2.8 2.8L10.8 8l3.4 3.4-2.8 2.8L8 10.8l-3.4 3.4-2.8-2.8L5.2 8 1.8 4.6z"/>',
    "star": '<path d="M8 1l2.1 4.7 5 .5-3.8 3.4 1.1 5L8 12l-4.4 2.6 1.1-5L.9 6.2l5-.5z"/>',
    "hexagon": '<path d="M8 2l5.2 3v6L8 14l-5.2-3V5z"/>',
}
"""Plotly's names of marks, each drawn in a square of 16."""


def mark(slot: int, shape: str) -> str:
    """An inline SVG of a mark, coloured by the page's theme."""
    return (
        f'<svg class="swatch" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" fill="var(--m{slot})">'
        f"{SHAPES[shape]}</svg>"
    )
