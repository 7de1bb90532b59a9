"""The figure of the README: time to accuracy on a slow link, as two SVG files, for light and for dark pages.

The figures are those of ``docs/data/slow_link.json``, which names the command, the machine and the day of the
measurement (``slow_link.py``). The same file gives the same bytes.

    python benchmarks/slow_link_figure.py
"""

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
RECORDS = DOCS / "data" / "slow_link.json"
FIGURES = DOCS / "figures"

WIDTH, LEFT, TOP, ROW_HEIGHT, BAR_HEIGHT = 700, 232, 66, 32, 18
PIXELS_A_SECOND = 4.4
TICKS_S = (0, 20, 40, 60, 80)


@dataclass(frozen=True)
class Theme:
    """The colours of a page."""

    page: str
    text: str
    faint_text: str
    grid: str
    plain_bar: str
    thinwire_bar: str


THEMES = {
    "light": Theme("#ffffff", "#1f2328", "#59636e", "#d8dde3", "#8c959f", "#0072b2"),
    "dark": Theme("#0d1117", "#e6edf3", "#9198a1", "#30363d", "#7d8590", "#4da6e8"),
}


def figure(records: dict[str, Any], theme: Theme) -> str:
    """One SVG: a bar for each way to train, its name at the left and its seconds at the right."""
    rows = records["rows"]
    bottom = TOP + ROW_HEIGHT * len(rows)
    height = bottom + 48
    title = f"Time to accuracy {records['target']:.2f} over {records['bandwidth']} and {records['latency']} one way"
    what = f"fashion-mnist, {records['parameters']:,} parameters, {records['processes']} processes, real sockets"
    numbers = "; ".join(f"{_name(row)}: {row['seconds']} seconds" for row in rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'role="img" font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="13">',
        f"<title>{html.escape(title)}</title>",
        f"<desc>{html.escape(numbers)}</desc>",
        f'<rect width="{WIDTH}" height="{height}" fill="{theme.page}"/>',
        _text(16, 26, title, theme.text, 'font-size="16" font-weight="600"'),
        _text(16, 46, what, theme.faint_text),
    ]
    for tick_s in TICKS_S:
        x = LEFT + PIXELS_A_SECOND * tick_s
        lines.append(f'<line x1="{x:g}" y1="{TOP}" x2="{x:g}" y2="{bottom}" stroke="{theme.grid}"/>')
        lines.append(_text(x, bottom + 17, str(tick_s), theme.faint_text, 'text-anchor="middle"'))
    middle = LEFT + PIXELS_A_SECOND * TICKS_S[-1] / 2
    lines.append(_text(middle, bottom + 37, "seconds, start-up included", theme.faint_text, 'text-anchor="middle"'))
    for index, row in enumerate(rows):
        y = TOP + ROW_HEIGHT * index + (ROW_HEIGHT - BAR_HEIGHT) / 2
        length = PIXELS_A_SECOND * row["seconds"]
        colour = theme.thinwire_bar if "call" in row else theme.plain_bar
        lines.append(f'<rect x="{LEFT}" y="{y:g}" width="{length:g}" height="{BAR_HEIGHT}" fill="{colour}"/>')
        lines.append(_text(LEFT - 8, y + 14, row["way"], theme.text, 'text-anchor="end"'))
        x = LEFT + length + 7
        lines.append(_text(x, y + 14, f"{row['seconds']:.1f} s", theme.text))
        if "call" in row:
            lines.append(_text(x + 42, y + 14, f"thinwire.{row['call']}", theme.faint_text))
    return "\n".join([*lines, "</svg>", ""])


def _name(row: dict[str, Any]) -> str:
    return f"thinwire.{row['call']} {row['way']}" if "call" in row else str(row["way"])


def _text(x: float, y: float, said: str, colour: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}"{" " + style if style else ""}>{html.escape(said)}</text>'


def figures() -> dict[Path, str]:
    """Every file of the figure, and what is in it."""
    records = json.loads(RECORDS.read_text())
    return {FIGURES / f"slow-link-{name}.svg": figure(records, theme) for name, theme in THEMES.items()}


if __name__ == "__main__":
    for path, content in figures().items():
        path.write_text(content)
        print(path)
