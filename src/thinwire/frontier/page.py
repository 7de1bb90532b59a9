"""The frontier as one self-contained HTML page: error against true bits, one figure for each input."""

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from thinwire.files import StrPath, write_atomically
from thinwire.frontier.points import KINDS, Kind, pareto
from thinwire.frontier.sweep import Frontier, FrontierRow
from thinwire.report.formats import significant
from thinwire.report.styles import line_style

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
_STYLE = """
:root{color-scheme:light dark;--ink:#22262b;--paper:#fff;--line:#d5d9de}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7eb;--paper:#16191d;--line:#3a4047}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:72rem;margin:auto;padding:1.5rem}
.plot{height:42rem}table{border-collapse:collapse;font-size:.85rem;width:100%}
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid var(--line)}td.n,th.n{text-align:right}
.wide{overflow-x:auto}code{font-size:.85em}
"""
_SCRIPT = """
const dark = matchMedia("(prefers-color-scheme: dark)");
const panels = JSON.parse(document.getElementById("panels").textContent);
function draw() {
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  const line = getComputedStyle(document.documentElement).getPropertyValue("--line");
  panels.forEach((panel, index) => {
    panel.layout.font.color = ink;
    for (const axis of [panel.layout.xaxis, panel.layout.yaxis]) axis.gridcolor = line;
    panel.data.forEach(trace => {
      if (trace.meta) trace.line.color = trace.marker.color = dark.matches ? trace.meta.dark : trace.meta.light;
    });
    Plotly.react("plot-" + index, panel.data, panel.layout, {responsive: true, displayModeBar: false});
  });
}
dark.addEventListener("change", draw);
draw();
"""
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8)
_TITLES = {"any": "all operators", "unbiased": "unbiased operators", "contraction": "contractions"}


def write_page(frontiers: Sequence[Frontier], path: StrPath) -> None:
    """Write the page; about 5 MB, nearly all of it the figures' library.

    Raises:
        ConfigError: the file cannot be written; what was there is as it was.
    """
    write_atomically(path, render(frontiers).encode())


def render(frontiers: Sequence[Frontier]) -> str:
    """The page as text; it fetches nothing."""
    # Plotly takes its time; a command that prints a table must not wait for it.
    from plotly.offline import get_plotlyjs

    panels = [(found, kind) for found in frontiers for kind in KINDS]
    shown = json.dumps([_panel(found, kind) for found, kind in panels], allow_nan=False).replace("<", "\\u003c")
    figures = "".join(
        f'<section><h2>{escape(found.input)}: {_TITLES[kind]}</h2><div class="plot" id="plot-{index}"></div>'
        f"{_table(found, kind)}</section>"
        for index, (found, kind) in enumerate(panels)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>thinwire: error against bits</title><style>{_STYLE}</style></head>
<body><main><h1>Error against bits on the wire</h1>
<p>Each line is the best that one operator reaches, over its parameters; bits are those of the encoded message, frame
and all. Lower and further left is better. Click a name to hide it, double-click to see it alone.</p>
{figures}</main>
<script type="application/json" id="panels">{shown}</script>
<script>{get_plotlyjs()}</script><script>{_SCRIPT}</script>
</body></html>
"""


def _panel(found: Frontier, kind: Kind) -> dict[str, Any]:
    traces = []
    fewest = 1.0  # bits an entry
    names = sorted({point.operator for point in found.points})
    for slot, name in enumerate(names):
        style = line_style(slot)
        front = pareto(point for point in found.points if point.operator == name and point.is_of(kind))
        front = [point for point in front if point.error > 0.0]
        if not front:
            continue
        fewest = min(fewest, front[0].bits)
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": escape(name),
                "x": [point.bits for point in front], "y": [point.error for point in front],
                "text": [escape(str(point.configuration)) for point in front],
                "hovertemplate": "%{text}<br>%{x:.4g} bits, error %{y:.4g}<extra></extra>",
                "line": {"width": 1.6, "dash": style.dash, "color": style.light},
                "marker": {"size": 4, "color": style.light}, "meta": {"light": style.light, "dark": style.dark},
            }
        )  # fmt: skip
    low = math.log10(0.9 * fewest)
    high = math.log10(1.5 if kind == "contraction" else 1e3)
    return {
        "data": traces,
        "layout": {
            "font": {"size": 13, "color": "#22262b"}, "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)", "margin": {"l": 60, "r": 10, "t": 10, "b": 50},
            "legend": {"font": {"size": 11}},
            "xaxis": {"type": "log", "title": {"text": "bits an entry"}, "range": [low, 0.95], "tickvals": _TICKS},
            "yaxis": {
                "type": "log", "title": {"text": "error"}, "range": [-4, high], "exponentformat": "power", "dtick": 1,
            },
        },
    }  # fmt: skip


def _table(found: Frontier, kind: Kind) -> str:
    rows = [row for row in found.rows if row.kind == kind]
    best: dict[tuple[float, int], FrontierRow] = {}
    for row in rows:
        key = (row.budget, row.clients)
        if key not in best or (row.error, row.bits) < (best[key].error, best[key].bits):
            best[key] = row
    lines = "".join(
        f'<tr><td class="n">{row.budget:g}</td><td class="n">{row.clients}</td><td><code>{escape(row.configuration)}'
        f'</code></td><td class="n">{row.bits:.4g}</td><td class="n">{significant(row.error)}</td></tr>'
        for row in best.values()
    )
    return (
        '<div class="wide"><table><thead><tr><th class="n">at most bits</th><th class="n">clients</th><th>best</th>'
        f'<th class="n">bits</th><th class="n">error</th></tr></thead><tbody>{lines}</tbody></table></div>'
    )
