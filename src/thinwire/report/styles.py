"""How a method is drawn: one colour and dash, the same in every figure, chip and table."""

from dataclasses import dataclass

# Okabe and Ito's colour-blind-safe hues, darkened for white paper and lightened for a dark page; the first is
# ink, for the baseline most comparisons begin with.
_LIGHT = ("#33383f", "#0072b2", "#d55e00", "#00845f", "#b0447f", "#b07d00", "#3a9bd6", "#6a4bc4")
_DARK = ("#d8dce2", "#4da6e8", "#ff8b45", "#2fc79c", "#e58fc0", "#e8b93e", "#9ad4f8", "#a996f5")
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
    """The style of the method at index ``slot``; 32 differ, then they repeat."""
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
