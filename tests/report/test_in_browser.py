"""Every kind of page in a real browser, where there is one: light and dark, wide and narrow, by keyboard, alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from report_folders import Plan, write_folder

from thinwire import pareto, report, scaling
from thinwire.compressors import QSGD, TopK
from thinwire.frontier import Frontier, FrontierRow
from thinwire.frontier import write_page as write_frontier
from thinwire.frontier.configurations import Configuration
from thinwire.frontier.points import Point
from thinwire.report.document import LIBRARY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
KINDS = ("comparison", "single-file", "side-by-side", "speedup", "pareto", "frontier")
METHODS = ("sgd", "qsgd:levels=4", "topk:density=1%", "signtopk:density=1%,every=8")
PARTS: dict[str, tuple[pareto.Part, ...]] = {
    "sgd": (), "qsgd:levels=4": ("quantize",), "topk:density=1%": ("sparsify",),
    "signtopk:density=1%,every=8": ("quantize", "sparsify", "local steps"),
}  # fmt: skip


def write_frontier_page(path: Path) -> None:
    """Of as many operators as there are, by made-up numbers."""
    tops = [Configuration(TopK(density=0.01 * (1 + place))) for place in range(6)]
    names = [f"Operator{number}" for number in range(24)]
    points = tuple(
        Point(name, one, 0.2 * (1 + place), 2.0 ** -(place + number / 8), number % 2 == 0, number % 3 == 0)
        for number, name in enumerate(names)
        for place, one in enumerate(tops)
    )
    row = FrontierRow(
        input="student <t>", budget=1.0, kind="any", clients=1, operator=names[3],
        configuration=str(Configuration(QSGD(levels=7))), json={}, chunk=None, bits=0.9, error=0.25, error_low=0.2,
        error_high=0.3, unbiased=False, contraction=True,
    )  # fmt: skip
    write_frontier([Frontier("student <t>", 512, points, (row,))], path, command="thinwire frontier --html <page>")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, by kind."""
    folder = tmp_path_factory.mktemp("pages")
    write_folder(folder / "a", Plan(diverges={"signsgd": (0, 1)}))
    write_folder(folder / "b", Plan(methods=METHODS, seeds=(0, 1, 2), changes={"workers": 16, "target": None}))
    for count in (1, 2, 4):
        changes: dict[str, Any] = {"workers": count, "target": 0.8, "codec_s": {}}
        write_folder(folder / "speedup" / f"workers-{count}", Plan(methods=METHODS, changes=changes))
    found = {kind: folder / f"{kind}.html" for kind in KINDS}
    report.write_page(report.load(folder / "a"), found["comparison"])
    report.write_page(report.load(folder / "a"), found["single-file"], inline=True)
    report.write_several(report.load_several([folder / "a", folder / "b"]), found["side-by-side"])
    scaling.write_page(scaling.load_speedup(folder / "speedup"), found["speedup"])
    (folder / "b" / pareto.FILE).write_text(pareto.family_text(PARTS))
    pareto.write_page(pareto.load_family(folder / "b"), found["pareto"])
    write_frontier_page(found["frontier"])
    return found


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Chromium, driven by Playwright."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install playwright)")
    with driver.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


def drawn(page: "Page", path: Path) -> list[str]:
    """Open a page until all its figures are drawn; what went wrong comes in the list, also later."""
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda each: wrong.append(each.url) if not each.url.startswith(("file:", "data:", "blob:")) else None
    )
    page.goto(path.as_uri())
    is_drawn = "[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg .xtick'))"
    settle(page, is_drawn)
    assert page.evaluate(is_drawn), "not drawn after 10 s"
    return wrong


def settle(page: "Page", condition: str) -> None:
    """Wait 10 s at most for what follows; what comes of it is asserted by the caller, with a message.

    Playwright's own ``wait_for_function`` makes code of text in the page each time it looks again, which the pages
    forbid.
    """
    page.evaluate(
        f"""async () => {{
          const end = performance.now() + 10_000;
          while (!({condition}) && performance.now() < end) await new Promise(requestAnimationFrame);
        }}"""
    )


CUT = """() => {
  const cut = [];
  for (const plot of document.querySelectorAll(".plot")) {
    const room = plot.getBoundingClientRect();
    if (room.right > innerWidth || room.left < 0) cut.push(`${plot.id} lies outside of the window`);
    const drawing = plot.querySelector(".main-svg").getBoundingClientRect();
    for (const side of ["width", "height"]) {
      if (Math.abs(drawing[side] - room[side]) > 1) cut.push(`${plot.id}: ${side} ${drawing[side]} in ${room[side]}`);
    }
    for (const text of plot.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      const isInside = box.left >= room.left - 1 && box.right <= room.right + 1
        && box.top >= room.top - 1 && box.bottom <= room.bottom + 1;
      if (box.width && !isInside) cut.push(`${plot.id}: ${text.textContent}`);
    }
  }
  return cut;
}"""
THEMED = """() => [...document.querySelectorAll(".plot")].every((plot) => plot.data.every((trace) =>
  trace.meta.part !== "line" || trace.line.color ===
    getComputedStyle(document.documentElement).getPropertyValue(`--m${trace.meta.slot}`).trim()))"""
SHOWN = """() => [...document.querySelectorAll(".plot")].map(
  (plot) => plot.data.filter((trace) => trace.visible !== false).map((trace) => trace.meta.slot))"""
LOOKS = """() => [...document.querySelectorAll(".plot")].map(
  (plot) => plot.data.filter((trace) => trace.meta.part === "line").map(
    (trace) => [trace.meta.slot, trace.line.color, trace.line.dash, trace.marker.symbol].join()))"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_drawn_in_full_in_any_light_and_width_and_asks_nobody(
    browser: "Browser", pages: dict[str, Path], kind: str
) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 900}, color_scheme="light")
    wrong = drawn(page, pages[kind])
    num_plots = page.locator(".plot").count()
    assert num_plots == page.evaluate("JSON.parse(document.getElementById('panels').textContent).length") > 0
    for width in (400, 1200):
        page.set_viewport_size({"width": width, "height": 900})
        settle(page, f"({CUT})().length === 0")
        assert page.evaluate(CUT) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        themes = []
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            paper = page.evaluate(r"getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)")
            assert (min(paper) > 200) if scheme == "light" else (max(paper) < 60)
            settle(page, f"({THEMED})()")
            looks = page.evaluate(LOOKS)
            for each in looks:
                own = dict(look.split(",", 1) for look in each)
                assert len(set(own.values())) == len(own), "two lines look alike"
            themes.append({look for each in looks for look in each})
        assert not themes[0] & themes[1]  # the figures have followed
    assert wrong == []
    page.close()


@pytest.mark.parametrize("kind", ["comparison", "pareto", "frontier"])
def test_everything_can_be_done_by_keyboard(browser: "Browser", pages: dict[str, Path], kind: str) -> None:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    page = context.new_page()
    wrong = drawn(page, pages[kind])
    before = page.evaluate(SHOWN)
    slots = {slot for shown in before for slot in shown}
    page.keyboard.press("Tab")
    first = page.locator(":focus")
    assert first.get_attribute("data-slot") == "0"
    assert first.evaluate("(chip) => getComputedStyle(chip).outlineStyle") == "solid"

    page.keyboard.press("Enter")
    assert first.get_attribute("aria-pressed") == "false"
    assert page.evaluate(SHOWN) == [[slot for slot in shown if slot != 0] for shown in before]
    page.keyboard.press("Space")
    assert page.evaluate(SHOWN) == before

    focus = "document.activeElement.textContent"
    for _ in range(len(slots) + 40):
        page.keyboard.press("Tab")
        if page.evaluate(focus) == "hide all":
            break
    page.keyboard.press("Enter")
    assert page.evaluate(SHOWN) == [[] for _ in before]
    assert page.locator(".chip.all").is_visible()
    page.locator(".chip.all").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(SHOWN) == before

    page.locator(".save").first.focus()
    with page.expect_download() as saved:
        page.keyboard.press("Enter")
    assert saved.value.suggested_filename.endswith(".svg")
    text = Path(saved.value.path()).read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert "http" not in text.replace("http://www.w3.org", "")
    assert wrong == []
    context.close()


def test_a_page_without_its_library_says_what_to_do(browser: "Browser", pages: dict[str, Path], tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(pages["comparison"].as_uri())
    assert not page.locator("#missing").is_visible()
    moved = tmp_path / "moved.html"
    moved.write_bytes(pages["comparison"].read_bytes())
    page.goto(moved.as_uri())
    assert page.locator("#missing").is_visible()
    assert LIBRARY in page.locator("#missing").inner_text()
    single = tmp_path / "single.html"
    single.write_bytes(pages["single-file"].read_bytes())
    assert drawn(page, single) == []
    page.close()
