"""Bars as SVG, for a page of Markdown: one file that follows the reader's light or dark theme."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BAR = 760, 330, 150, 48, 26, 16
_STYLE = (
    "text{fill:#1f2328}.faint{fill:#59636e}.bar{fill:#0072b2}.plain{fill:#8c959f}line{stroke:#d8dde3}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.bar{fill:#4da6e8}.plain{fill:#7d8590}"
    "line{stroke:#30363d}}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar.

    Args:
        name: at its left.
        value: its length on a log axis; above 0.
        text: at its right.
        is_plain: what others are compared with.
    """

    name: str
    value: float
    text: str
    is_plain: bool = False


def bars(title: str, axis: str, rows: Sequence[Bar]) -> str:
    """One SVG of bars on a log axis of whole powers of ten.

    Example:
        >>> figure = bars("Bits", "times fewer", [Bar("sgd", 1.0, "1", is_plain=True), Bar("topk", 100.0, "100")])
        >>> figure.count("<rect"), figure.count("<line")
        (2, 3)
    """
    low = math.floor(math.log10(min(row.value for row in rows)))
    high = max(low + 1, math.ceil(math.log10(max(row.value for row in rows))))
    scale = (_WIDTH - _LEFT - _RIGHT) / (high - low)
    bottom = _TOP + _ROW * len(rows)
    height = bottom + 44
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        'role="img" font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="13">',
        f"<style>{_STYLE}</style>",
        f"<title>{html.escape(title)}</title>",
        _text(8, 26, title, 'font-size="16" font-weight="600"'),
    ]
    for power in range(low, high + 1):
        x = _LEFT + scale * (power - low)
        lines.append(f'<line x1="{x:g}" y1="{_TOP}" x2="{x:g}" y2="{bottom}"/>')
        lines.append(_text(x, bottom + 16, f"{10.0**power:g}", 'class="faint" text-anchor="middle"'))
    lines.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 36, axis, 'class="faint" text-anchor="middle"'))
    for index, row in enumerate(rows):
        y = _TOP + _ROW * index + (_ROW - _BAR) / 2
        length = max(2.0, scale * (math.log10(row.value) - low))
        kind = "plain" if row.is_plain else "bar"
        lines.append(f'<rect class="{kind}" x="{_LEFT}" y="{y:g}" width="{length:.1f}" height="{_BAR}"/>')
        lines.append(_text(_LEFT - 8, y + 13, row.name, 'text-anchor="end"'))
        lines.append(_text(_LEFT + length + 6, y + 13, row.text, 'class="faint"'))
    return "\n".join([*lines, "</svg>", ""])


def _text(x: float, y: float, said: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:g}" {style}>{html.escape(said)}</text>'
