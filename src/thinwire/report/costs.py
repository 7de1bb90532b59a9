"""What a method's bytes and seconds consist of, and its seconds on other links: two tables of the page."""

from collections.abc import Sequence
from html import escape

from thinwire.report.document import name_cell, table
from thinwire.report.formats import MISSING, human_seconds, significant
from thinwire.report.grids import head_row
from thinwire.report.records import RecordedComparison
from thinwire.report.rows import ResultRow

_MEANINGS = {
    "exchange": "how messages travel. An all-reduce adds them on the way; others grow with the number of workers.",
    "all-reduce": "whether an all-reduce serves.",
    "density of the mean": "share of its entries that are not 0 after the last exchange: how far sparse messages "
    "filled in.",
    "error of messages": "squared norm of what a message lost over that of what was to be sent (vNMSE), the mean over "
    "the messages that were looked at. It says nothing yet about the metric.",
    "compress + decode": "seconds that the slowest worker is charged for an exchange, beyond what dense f32 takes.",
    "computing": "share of the seconds in which a worker computes; in the rest it waits or compresses.",
}


def cost_table(data: RecordedComparison, rows: Sequence[ResultRow]) -> str:
    """One line a method."""
    lines = []
    for slot, row in enumerate(rows):
        cells = (
            row.exchange or MISSING,
            MISSING if row.all_reduces is None else "yes" if row.all_reduces else "no",
            _share(row.union_density),
            MISSING if row.relative_error is None else significant(row.relative_error),
            human_seconds(max(data.codec_s[row.method])) if row.method in data.codec_s else MISSING,
            _share(row.computing_share),
        )
        lines.append(f"<tr>{name_cell(row.method, slot)}{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    explained = "".join(f"<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>" for name, meaning in _MEANINGS.items())
    return f'{table(head_row(["method", *_MEANINGS]), lines)}<dl class="meanings">{explained}</dl>'


def link_table(data: RecordedComparison, rows: Sequence[ResultRow]) -> str:
    """Seconds to the target on other links, or of a step where there is no target; empty if none were tried."""
    if not data.links:
        return ""
    head = head_row(["method", *(network for network, _ in data.links)])
    has_target = any(row.steps_to_target is not None for row in rows)
    lines = []
    for slot, row in enumerate(rows):
        cells = ""
        for _, seconds in data.links:
            step_s, steps = seconds.get(row.method), row.steps_to_target if has_target else 1.0
            text = MISSING if step_s is None or steps is None else f"{significant(steps * step_s)} s"
            cells += f"<td>{text}</td>"
        lines.append(f"<tr>{name_cell(row.method, slot)}{cells}</tr>")
    what = "Seconds to the target" if has_target else "Seconds of a step"
    return (
        f"<p>{what} on other links, bandwidth and latency swept: steps as above, and the simulated clock of a step on "
        "each link. A synchronous method trains the same on any link; one that is not, or has no usual step, has "
        f"{MISSING}.</p>" + table(head, lines)
    )


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.3g} %"
