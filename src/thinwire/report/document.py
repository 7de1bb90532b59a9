"""An HTML page with interactive figures: it fetches nothing from a network, and every page looks the same."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from thinwire.files import StrPath, write_atomically
from thinwire.report.styles import palette_css, swatch

LIBRARY = "plotly-basic-4.1.1.min.js"
"""Plotly's basic bundle (MIT), kept with the package: Python's plotly has the full one only, of 4.8 MB."""
# What would come from another place is refused, so that the page shows the same without a network.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'self' file:; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a page shows.

    Args:
        title: plain text.
        header: HTML below the title.
        body: HTML of sections, among them every drawing's :func:`figures`.
        drawings: in the order of their numbers.
        num_names: how many lines differ.
        remake: a command that makes it as one file.
    """

    title: str
    header: str
    body: str
    drawings: Sequence[Drawing]
    num_names: int
    remake: str = "thinwire report FOLDER --inline"


def write_document(page: Page, path: StrPath, *, inline: bool = False) -> None:
    """Write a page, and the figures' library (1.2 MB) beside it, once for all pages of a folder.

    Args:
        page: what it shows.
        path: the file.
        inline: whether the library goes into the page, so that it can be moved and sent alone.

    Raises:
        ConfigError: a file cannot be written; what was there is as it was.
    """
    library = Path(path).parent / LIBRARY
    text = _resource("vendored", LIBRARY)
    if not inline and not (library.is_file() and library.stat().st_size == len(text.encode())):
        write_atomically(library, text.encode())
    write_atomically(path, document(page, text if inline else "").encode())


def document(page: Page, library: str = "") -> str:
    """The page as text, with the library in it, or with a reference to the file beside it if that is empty."""
    shown = json.dumps([drawing.content for drawing in page.drawings], allow_nan=False)
    # Inside a script element only "<" could end it or open a comment.
    shown = shown.replace("<", "\\u003c")
    script = f"<script>{library}</script>" if library else f'<script src="{LIBRARY}"></script>'
    title = escape(page.title)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{{palette_css(page.num_names, dark=False)}}}
@media (prefers-color-scheme: dark) {{:root {{{palette_css(page.num_names, dark=True)}}}}}
{_resource("page.css")}
</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
{page.header}
<p class="missing" id="missing" role="alert" hidden>The figures need the file <code>{LIBRARY}</code> beside this page.
<code>{escape(page.remake)}</code> makes a page that needs no other file.</p>
</header>
{page.body}
</main>
<footer>Made by thinwire {escape(_version())}.</footer>
<script type="application/json" id="panels">{shown}</script>
{script}
<script>
{_resource("page.js")}
</script>
</body>
</html>
"""


def section(name: str, title: str, content: str) -> str:
    """A part of the page with a heading; ``name`` is its anchor."""
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(title)}</h2>\n{content}\n</section>'


def note(text: str) -> str:
    """A remark below figures or a table, of plain text."""
    return f'<p class="note">{escape(text)}</p>'


def legend(names: Sequence[str], tags: Sequence[str] = (), swatches: Sequence[str] = ()) -> str:
    """One legend for all figures; its buttons hide and show a name in each of them.

    Args:
        names: by slot.
        tags: HTML behind each name; none if not given.
        swatches: what is drawn before each name; its line if not given.
    """
    shown = swatches or [swatch(slot) for slot in range(len(names))]
    chips = "".join(
        f'<button type="button" class="chip" data-slot="{slot}" aria-pressed="true">{shown[slot]}'
        f"<code>{escape(name)}</code>{tags[slot] if tags else ''}</button>"
        for slot, name in enumerate(names)
    )
    return (
        f'<div class="legend" role="group" aria-label="lines shown">{chips}'
        '<button type="button" class="chip all" hidden>show all</button>'
        '<button type="button" class="chip none">hide all</button></div>'
        "<noscript><p>The figures need JavaScript; the text and the tables do not.</p></noscript>"
    )


def figures(drawings: Sequence[Drawing], first: int = 0, *, side_by_side: bool = False) -> str:
    """Where drawings appear.

    Args:
        drawings: in the order of their numbers.
        first: the number of the first of them.
        side_by_side: whether they are to share a row while there is room for small ones, else only for large ones.
    """
    each = "".join(_figure(first + number, drawing) for number, drawing in enumerate(drawings))
    return f'<div class="panels{" row" if side_by_side else ""}">{each}</div>'


def _figure(number: int, drawing: Drawing) -> str:
    remark = note(drawing.note) if drawing.note else ""
    title = escape(drawing.title)
    save = (
        f'<button type="button" class="save" data-plot="{number}" data-name="{_file_name(drawing.title)}" '
        f'aria-label="save {title} as SVG" hidden>SVG</button>'
    )
    return f'<figure><figcaption>{title}{save}</figcaption><div class="plot" id="plot-{number}"></div>{remark}</figure>'


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def table(head: str, lines: Sequence[str]) -> str:
    """A table of numbers that scrolls by itself where it is too wide; ``head`` and ``lines`` are HTML rows."""
    return (
        f'<div class="scroll"><table class="numbers"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def name_cell(name: str, slot: int, mark: str = "") -> str:
    """The cell that says what a row is: its line and its name."""
    return drawn_cell(name, swatch(slot), mark)


def drawn_cell(name: str, drawn: str, mark: str = "") -> str:
    """The cell that says what a row is: what stands for it, as HTML, and its name, broken after a colon or comma."""
    shown = escape(name).replace(":", ":<wbr>").replace(",", ",<wbr>")
    return f'<th scope="row" class="method">{drawn}<code>{shown}</code>{mark}</th>'


def _resource(*names: str) -> str:
    return resources.files("thinwire.report").joinpath(*names).read_text(encoding="utf-8")


def _version() -> str:
    try:
        return metadata.version("thinwire")
    except metadata.PackageNotFoundError:
        return "unknown"
