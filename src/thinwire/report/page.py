"""One self-contained HTML page: text, figures, tables, the command; it fetches nothing."""

import json
from html import escape
from importlib import metadata, resources
from typing import TYPE_CHECKING

from thinwire.files import StrPath, write_atomically
from thinwire.report.prose import headline, setup
from thinwire.report.records import RecordedComparison
from thinwire.report.rows import ResultRow, summarise
from thinwire.report.styles import palette_css, swatch
from thinwire.report.tables import summary_table, tuning_table

if TYPE_CHECKING:
    from thinwire.report.figures import Panel

# Whatever a browser would have to fetch is refused, so the page shows the same without a network.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)


def write_page(data: RecordedComparison, path: StrPath) -> None:
    """Write the page to ``path``; about 5 MB, nearly all of it the figures' library.

    Raises:
        ConfigError: the file cannot be written; what was there is as it was.
    """
    write_atomically(path, render(data).encode())


def render(data: RecordedComparison) -> str:
    """The page as text."""
    # Plotly is imported here: a report that only prints a table must not wait for it.
    from plotly.offline import get_plotlyjs

    from thinwire.report.figures import panels

    rows = summarise(data)
    swatches = {method: swatch(slot) for slot, method in enumerate(data.methods)}
    shown = panels(data)
    title = f"thinwire: {len(data.methods)} method{'s' * (len(data.methods) > 1)} on {data.task}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
:root {{{palette_css(len(data.methods), dark=False)}}}
@media (prefers-color-scheme: dark) {{:root {{{palette_css(len(data.methods), dark=True)}}}}}
{_resource("page.css")}
</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p class="headline">{headline(data, rows)}</p>
<p>{setup(data)}</p>
{_notes(data)}
</header>
<section aria-labelledby="figures">
<h2 id="figures">Figures</h2>
{_legend(rows, swatches)}
<div class="panels">{"".join(_panel(index, panel) for index, panel in enumerate(shown))}</div>
<p class="note">{_figure_note(data)}</p>
</section>
<section aria-labelledby="summary">
<h2 id="summary">Summary</h2>
{summary_table(rows, swatches)}
</section>
<section aria-labelledby="rates">
<h2 id="rates">Search of the learning rate</h2>
{_search(data, swatches)}
</section>
<section aria-labelledby="command">
<h2 id="command">Command</h2>
<pre>{escape(data.command)}</pre>
</section>
</main>
<footer>Made by thinwire {escape(_version())}.</footer>
<script type="application/json" id="panels">{_panels_json(shown)}</script>
<script>{get_plotlyjs()}</script>
<script>
{_resource("page.js")}
</script>
</body>
</html>
"""


def _notes(data: RecordedComparison) -> str:
    if not data.notes:
        return ""
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in data.notes)}</ul>'


def _legend(rows: list[ResultRow], swatches: dict[str, str]) -> str:
    """One legend for all figures; its buttons hide and show a method in each of them."""
    chips = "".join(
        f'<button type="button" class="chip" data-slot="{slot}" aria-pressed="true">{swatches[row.method]}'
        f"<code>{escape(row.method)}</code>{_fate(row)}</button>"
        for slot, row in enumerate(rows)
    )
    return (
        f'<div class="legend" role="group" aria-label="methods shown">{chips}'
        '<button type="button" class="chip all" hidden>show all</button></div>'
        "<noscript><p>The figures need JavaScript; the text and the tables do not.</p></noscript>"
    )


def _fate(row: ResultRow) -> str:
    if row.num_runs == 0:
        return ' <span class="tag">no run</span>'
    if row.diverged:
        return ' <span class="tag">diverged</span>'
    if row.num_diverged:
        return f' <span class="tag">{row.num_diverged} of {row.num_runs} diverged</span>'
    return ""


def _panel(index: int, panel: "Panel") -> str:
    note = f'<p class="note">{escape(panel.note)}</p>' if panel.note else ""
    return (
        f'<figure><figcaption>{escape(panel.title)}</figcaption><div class="plot" id="plot-{index}"></div>'
        f"{note}</figure>"
    )


def _figure_note(data: RecordedComparison) -> str:
    several = len({record.seed for record in data.results}) > 1
    lines = "Lines are means over seeds, bands reach from the least to the greatest run. " if several else ""
    ends = "A cross ends the line of a method that diverged in every run. "
    zero = "The evaluation before the first step has no bytes, so it is not on the axes of bytes. "
    use = "Click a method above to hide or show it in every figure; drag to zoom, double-click to go back."
    return lines + (ends if any(not record.finite for record in data.results) else "") + zero + use


def _search(data: RecordedComparison, swatches: dict[str, str]) -> str:
    if not data.tuning:
        return "<p>No learning rate was searched: the comparison was given them.</p>"
    better = "higher" if data.metric.higher_is_better else "lower"
    return (
        f"<p>The {escape(data.metric.name)} on the validation split per learning rate; {better} is "
        "better. A ✓ marks the one that the final runs took. Where it lies at the edge of those tried, a "
        f"better one may lie beyond.</p>{tuning_table(data, swatches)}"
    )


def _panels_json(shown: "list[Panel]") -> str:
    text = json.dumps([json.loads(panel.figure.to_json()) for panel in shown], allow_nan=False)
    # Inside a script element only "<" could end it or open a comment.
    return text.replace("<", "\\u003c")


def _resource(name: str) -> str:
    return resources.files("thinwire.report").joinpath(name).read_text(encoding="utf-8")


def _version() -> str:
    try:
        return metadata.version("thinwire")
    except metadata.PackageNotFoundError:
        return "unknown"
