"""One self-contained HTML page: text, figures, tables, the command; it fetches nothing."""

import json
from collections.abc import Mapping
from html import escape

from thinwire.files import StrPath
from thinwire.report.costs import cost_table, link_table
from thinwire.report.document import Drawing, Page, figures, legend, section, write_document
from thinwire.report.prose import headline, setup
from thinwire.report.records import RecordedComparison
from thinwire.report.rows import ResultRow, summarise
from thinwire.report.tables import summary_table, tuning_table


def write_page(data: RecordedComparison, path: StrPath, *, inline: bool = False) -> None:
    """Write the page and beside it the figures' library, or both in one file; see :func:`write_document`.

    Raises:
        ConfigError: the file cannot be written; what was there is as it was.
    """
    write_document(page_of(data), path, inline=inline)


def page_of(data: RecordedComparison) -> Page:
    """What the page shows."""
    rows, drawings = summarise(data), drawings_of(data)
    shown = (
        f"{legend([row.method for row in rows], [_fate(row) for row in rows])}\n{figures(drawings)}\n"
        f'<p class="note">{_figure_note(data)}</p>'
    )
    sections = (
        section("figures", "Figures", shown),
        section("summary", "Summary", summary_table(rows)),
        section("costs", "What it consists of", f"{cost_table(data, rows)}{link_table(data, rows)}"),
        section("rates", "Search of the learning rate", _search(data)),
        section("command", "Command", f"<pre>{escape(data.command)}</pre>"),
    )
    title = f"thinwire: {len(data.methods)} method{'s' * (len(data.methods) > 1)} on {data.task}"
    header = f'<p class="headline">{headline(data, rows)}</p>\n<p>{setup(data)}</p>\n{_notes(data)}'
    return Page(title=title, header=header, body="\n".join(sections), drawings=drawings, num_names=len(data.methods))


def drawings_of(data: RecordedComparison, slots: Mapping[str, int] | None = None) -> list[Drawing]:
    """The figures, in plain values; ``slots`` as :func:`thinwire.report.figures.panels` takes them."""
    # Plotly is imported here: a report that only prints a table must not wait for it.
    from thinwire.report.figures import panels

    return [
        Drawing(title=panel.title, content=json.loads(panel.figure.to_json()), note=panel.note)
        for panel in panels(data, slots)
    ]


def _notes(data: RecordedComparison) -> str:
    if not data.notes:
        return ""
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in data.notes)}</ul>'


def _fate(row: ResultRow) -> str:
    if row.num_runs == 0:
        return ' <span class="tag">no run</span>'
    if row.diverged:
        return ' <span class="tag">diverged</span>'
    if row.num_diverged:
        return f' <span class="tag">{row.num_diverged} of {row.num_runs} diverged</span>'
    return ""


def _figure_note(data: RecordedComparison) -> str:
    several = len({record.seed for record in data.results}) > 1
    lines = "Lines are means over seeds, bands reach from the least to the greatest run. " if several else ""
    ends = "A cross ends the line of a method that diverged in every run. "
    zero = "The evaluation before the first step has no bytes, so it is not on the axes of bytes. "
    use = "Click a method above to hide or show it in every figure; drag to zoom, double-click to go back."
    return lines + (ends if any(not record.finite for record in data.results) else "") + zero + use


def _search(data: RecordedComparison) -> str:
    if not data.tuning:
        return "<p>No learning rate was searched: the comparison was given them.</p>"
    better = "higher" if data.metric.higher_is_better else "lower"
    return (
        f"<p>The {escape(data.metric.name)} on the validation split per learning rate; {better} is "
        "better. A ✓ marks the one that the final runs took. Where it lies at the edge of those tried, a "
        f"better one may lie beyond.</p>{tuning_table(data)}"
    )
