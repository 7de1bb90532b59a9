"""One self-contained HTML page with interactive figures: it fetches nothing, and every page looks the same."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import metadata, resources
from typing import Any

from thinwire.report.styles import palette_css, swatch

# Whatever a browser would have to fetch is refused, so the page shows the same without a network.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One figure as plotly takes it.

    Every trace carries ``meta`` = {"slot": index of its name, "part": "line" | "band"}, by which the page's script
    colours and hides it.

    Args:
        title: above it.
        content: ``data`` and ``layout``, in plain values.
        note: below it; empty for none.
    """

    title: str
    content: Mapping[str, Any]
    note: str = ""


def document(title: str, header: str, body: str, drawings: Sequence[Drawing], num_names: int) -> str:
    """The page as text; about 5 MB, nearly all of it the figures' library.

    Args:
        title: plain text.
        header: HTML below the title.
        body: HTML of sections, among them every drawing's :func:`figure`.
        drawings: in the order of their numbers.
        num_names: how many lines differ.
    """
    # Plotly is imported here: a command that only prints a table must not wait for it.
    from plotly.offline import get_plotlyjs

    shown = json.dumps([drawing.content for drawing in drawings], allow_nan=False)
    # Inside a script element only "<" could end it or open a comment.
    shown = shown.replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
:root {{{palette_css(num_names, dark=False)}}}
@media (prefers-color-scheme: dark) {{:root {{{palette_css(num_names, dark=True)}}}}}
{_resource("page.css")}
</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
{header}
</header>
{body}
</main>
<footer>Made by thinwire {escape(_version())}.</footer>
<script type="application/json" id="panels">{shown}</script>
<script>{get_plotlyjs()}</script>
<script>
{_resource("page.js")}
</script>
</body>
</html>
"""


def section(name: str, title: str, content: str) -> str:
    """A part of the page with a heading; ``name`` is its anchor."""
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(title)}</h2>\n{content}\n</section>'


def legend(names: Sequence[str], tags: Sequence[str] = ()) -> str:
    """One legend for all figures; its buttons hide and show a name in each of them.

    Args:
        names: by slot.
        tags: HTML behind each name; none if not given.
    """
    chips = "".join(
        f'<button type="button" class="chip" data-slot="{slot}" aria-pressed="true">{swatch(slot)}'
        f"<code>{escape(name)}</code>{tags[slot] if tags else ''}</button>"
        for slot, name in enumerate(names)
    )
    return (
        f'<div class="legend" role="group" aria-label="lines shown">{chips}'
        '<button type="button" class="chip all" hidden>show all</button></div>'
        "<noscript><p>The figures need JavaScript; the text and the tables do not.</p></noscript>"
    )


def figures(drawings: Sequence[Drawing], first: int = 0) -> str:
    """Where drawings appear, side by side where there is room; ``first`` is the number of the first of them."""
    each = "".join(_figure(first + number, drawing) for number, drawing in enumerate(drawings))
    return f'<div class="panels">{each}</div>'


def _figure(number: int, drawing: Drawing) -> str:
    note = f'<p class="note">{escape(drawing.note)}</p>' if drawing.note else ""
    return (
        f'<figure><figcaption>{escape(drawing.title)}</figcaption><div class="plot" id="plot-{number}"></div>'
        f"{note}</figure>"
    )


def table(head: str, lines: Sequence[str]) -> str:
    """A table of numbers that scrolls by itself where it is too wide; ``head`` and ``lines`` are HTML rows."""
    return (
        f'<div class="scroll"><table class="numbers"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def name_cell(name: str, slot: int | None, mark: str = "") -> str:
    """The cell that says what a row is: its line, if any, and its name, which may be broken after a colon or comma."""
    shown = escape(name).replace(":", ":<wbr>").replace(",", ",<wbr>")
    line = "" if slot is None else swatch(slot)
    return f'<th scope="row" class="method">{line}<code>{shown}</code>{mark}</th>'


def _resource(name: str) -> str:
    return resources.files("thinwire.report").joinpath(name).read_text(encoding="utf-8")


def _version() -> str:
    try:
        return metadata.version("thinwire")
    except metadata.PackageNotFoundError:
        return "unknown"
