"""The page: complete, escaped, self-contained, and honest about what its axes can show."""

import errno
import json
import re
import statistics
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from report_folders import Folder, Write

from thinwire.errors import ConfigError
from thinwire.report import load, summarise, write_page
from thinwire.report.document import LIBRARY
from thinwire.report.figures import Panel, panels
from thinwire.report.formats import MISSING, human_bytes
from thinwire.report.prose import headline, setup
from thinwire.report.tables import tuning_remark

LOSS = {"name": "suboptimality", "higher_is_better": False, "logarithmic": True}


def page(folder: Folder) -> str:
    """The page, beside which the figures' library lies."""
    path = folder.path / "report.html"
    write_page(load(folder.path), path)
    return path.read_text(encoding="utf-8")


def words(html: str) -> str:
    return re.sub(r"<[^>]+>", "", html)


def lines(panel: Panel) -> list[Any]:
    return [trace for trace in panel.figure.data if trace.meta["part"] == "line"]


def test_every_method_the_command_and_the_notes_are_there_escaped(write: Write) -> None:
    folder = write()
    text = page(folder)
    shown = text[: text.index('<script type="application/json"')]
    for method in folder.comparison["methods"]:
        assert f"<code>{escape(method)}</code>" in shown
    assert f"<pre>{escape(folder.comparison['command'])}</pre>" in text
    assert "A note about &lt;this&gt; comparison." in text
    assert "<nesterov>" not in text
    assert "<this>" not in text
    assert "<done>" not in text


def test_nothing_is_fetched(write: Write) -> None:
    text = page(write())
    assert "default-src 'none'" in text
    assert re.findall(r'\bsrc="([^"]*)"', text) == [LIBRARY]
    assert not re.search(r"<(link|img|iframe|base)\b|@import|url\(|\bhref=", text)
    assert "http" not in text.replace("http-equiv", "")


def test_a_page_is_small_and_has_the_library_once_beside_it_or_in_it(write: Write, tmp_path: Path) -> None:
    folder = write()
    page(folder)
    library = folder.path / LIBRARY
    assert library.read_text(encoding="utf-8").count("window.Plotly = Plotly") == 1
    assert (folder.path / "report.html").stat().st_size + library.stat().st_size < 1_500_000
    assert (folder.path / "report.html").stat().st_size < 300_000

    before = library.stat().st_mtime_ns
    page(folder)
    assert library.stat().st_mtime_ns == before  # once for all pages of a folder
    library.write_text("damaged")
    page(folder)
    assert library.stat().st_size > 1_000_000

    alone = tmp_path / "alone" / "report.html"
    write_page(load(folder.path), alone, inline=True)
    assert list(alone.parent.iterdir()) == [alone]
    assert alone.stat().st_size < 1_500_000
    text = alone.read_text(encoding="utf-8")
    assert "src=" not in text.replace(library.read_text(encoding="utf-8"), "")
    assert text.count("window.Plotly = Plotly") == 1


def test_the_library_is_licensed_and_leaves_the_script_that_it_is_put_into() -> None:
    folder = resources.files("thinwire.report") / "vendored"
    text = (folder / LIBRARY).read_text(encoding="utf-8")
    assert "MIT" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert f"v{LIBRARY.removeprefix('plotly-basic-').removesuffix('.min.js')}" in text[:200]
    assert "</script" not in text
    assert "<!--" not in text


def test_the_embedded_figures_are_json_without_nan(write: Write) -> None:
    text = page(write(diverges={"signsgd": (0, 1), "topk:density=1%": (0,)}))
    body = re.search(r'<script type="application/json" id="panels">(.*?)</script>', text, re.S)
    assert body is not None
    figures = json.loads(body[1], parse_constant=lambda name: pytest.fail(name))
    assert len(figures) == 8
    assert "<" not in body[1]


def test_step_zero_is_dropped_where_an_axis_is_logarithmic(write: Write) -> None:
    data = load(write().path)
    message, link, steps, seconds, *_ = panels(data)
    for panel in (message, link):
        assert panel.figure.layout.xaxis.type == "log"
        assert all(min(trace.x) > 0 and len(trace.x) == 14 for trace in lines(panel))
    assert all(trace.x[0] == 0 and len(trace.x) == 15 for trace in lines(steps))
    assert seconds.figure.layout.xaxis.type == "linear"


def test_seconds_far_apart_are_on_a_log_axis(write: Write) -> None:
    folder = write()
    path = folder.path / "results.jsonl"
    slow = [json.loads(line) for line in path.read_text().splitlines()]
    slow = [r | {"seconds": r["seconds"] * (50 if r["method"] == "sgd" else 1)} for r in slow]
    path.write_text("".join(json.dumps(r) + "\n" for r in slow))
    seconds = panels(load(folder.path))[3]
    assert seconds.figure.layout.xaxis.type == "log"
    assert all(min(trace.x) > 0 for trace in lines(seconds))


def test_lines_are_means_and_bands_reach_to_the_extremes(write: Write) -> None:
    folder = write(methods=["sgd"])
    panel = panels(load(folder.path))[2]
    band, line = panel.figure.data
    at_600 = [r["value"] for r in folder.results if r["step"] == 600]
    assert line.y[-1] == pytest.approx(sum(at_600) / 2)
    assert {band.y[14], band.y[15]} == {max(at_600), min(at_600)}
    assert not any(trace.meta["part"] == "band" for trace in panels(load(write(seeds=(0,)).path))[2].figure.data)


def test_a_method_looks_the_same_in_every_figure_and_no_two_alike(write: Write) -> None:
    shown = panels(load(write().path))
    looks = [{t.meta["slot"]: (t.line.color, t.line.dash) for t in lines(panel)} for panel in shown]
    assert [len(look) for look in looks] == [8, 8, 8, 8, 8, 8, 7, 2]  # not every method has a memory, or local steps
    assert all(look.items() <= looks[0].items() for look in looks)
    assert len(set(looks[0].values())) == 8


def test_what_theorems_bound_is_drawn_where_there_is_some(write: Write) -> None:
    folder = write()
    *_, memory, drift = panels(load(folder.path))
    assert (memory.title, drift.title) == (
        "norm of the memory against steps", "distance of local models from the shared one against steps",
    )  # fmt: skip
    slot = folder.comparison["methods"].index("topk:density=1%")
    (line,) = (trace for trace in lines(memory) if trace.meta["slot"] == slot)
    raw = [r for r in folder.results if r["method"] == "topk:density=1%"]
    assert list(line.x) == sorted({r["step"] for r in raw})
    means = [statistics.mean(r["memory_norm"] for r in raw if r["step"] == step) for step in line.x]
    assert list(line.y) == pytest.approx(means)
    assert [panel.title for panel in panels(load(write(methods=["sgd"]).path))][6:] == []


def test_the_loss_is_shown_by_samples_and_by_seconds(write: Write) -> None:
    folder = write()
    by_samples, by_seconds = panels(load(folder.path))[4:6]
    raw = [r for r in folder.results if r["method"] == "signsgd"]
    slot = folder.comparison["methods"].index("signsgd")
    for panel, name in ((by_samples, "epoch"), (by_seconds, "seconds")):
        (line,) = (trace for trace in lines(panel) if trace.meta["slot"] == slot)
        for wanted, shown in ((name, line.x), ("loss", line.y)):
            steps = sorted({r["step"] for r in raw})
            means = [statistics.mean(r[wanted] for r in raw if r["step"] == step) for step in steps]
            assert list(shown) == pytest.approx(means)
        assert not panel.figure.layout.shapes  # the target is one of the metric


def test_thirty_two_styles_differ() -> None:
    from thinwire.report.styles import line_style

    assert len({(line_style(slot).dark, line_style(slot).dash) for slot in range(32)}) == 32
    assert len({(line_style(slot).light, line_style(slot).dash) for slot in range(32)}) == 32


def test_a_logarithmic_metric_has_a_log_axis_and_its_target(write: Write) -> None:
    folder = write(
        value=lambda a, m: 0.0 if m == "signsgd" and a > 0.7 else 10 ** (-6 * a),
        changes={"metric": LOSS, "target": 1e-5},
    )
    panel = panels(load(folder.path))[0]
    assert panel.figure.layout.yaxis.type == "log"
    assert panel.figure.layout.shapes[0].y0 == 1e-5
    assert panel.figure.layout.annotations[0].y == pytest.approx(-5)
    assert all(min(trace.y) > 0 for trace in lines(panel))
    assert "suboptimality ≤ 1.00e-05" in page(folder)


def test_values_far_worse_than_the_start_do_not_flatten_the_rest(write: Write) -> None:
    metric = {"name": "test loss", "higher_is_better": False, "logarithmic": False}
    astray = write(
        value=lambda a, m: 1e6 * a if m == "signsgd" and a > 0.3 else 1 - a,
        changes={"metric": metric, "target": 0.14},
    )
    steps = panels(load(astray.path))[2]
    assert steps.figure.layout.yaxis.range[1] < 2
    assert "cut off" in steps.note
    assert panels(load(write().path))[2].note == ""


def test_diverged_methods_are_called_so(write: Write) -> None:
    text = page(write(diverges={"signsgd": (0, 1), "topk:density=1%": (1,)}))
    assert '<code>signsgd</code> <span class="tag">diverged</span>' in text
    assert '<span class="tag">1 of 2 diverged</span>' in text
    assert "<td>diverged</td>" in text
    assert "(1 of 2 diverged)" in text


def test_everything_diverged(write: Write) -> None:
    methods = ["sgd", "signsgd"]
    folder = write(methods=methods, diverges=dict.fromkeys(methods, (0, 1)), changes={"target": None})
    assert "Every method diverged." in page(folder)


def test_a_target_that_is_never_reached(write: Write) -> None:
    text = page(write(changes={"target": 0.99}))
    assert "No method reached accuracy 0.99 in every run within 600 steps." in words(text)
    assert "<td>—</td>" in text


def test_the_headline_says_what_the_rows_say(write: Write) -> None:
    data = load(write().path)
    rows = {row.method: row for row in summarise(data)}
    lead = rows["signtopk:density=1%,every=8"]
    text = words(headline(data, list(rows.values())))
    assert text.startswith(
        f"{lead.method} reached accuracy 0.86 with {lead.message_ratio:,.0f} times fewer message bytes and "
        f"{lead.link_ratio:,.0f} times fewer bytes on the link than tuned sgd."
    )
    assert "The fastest was powersgd:rank=2" in text


def test_more_bytes_than_the_baseline_are_not_sold_as_fewer(write: Write) -> None:
    folder = write(methods=["topk:density=1%", "sgd"], changes={"dense": ["topk:density=1%"]})
    text = words(headline(load(folder.path), summarise(load(folder.path))))
    assert "times more message bytes" in text


def test_the_setup_is_said_in_words(write: Write) -> None:
    text = words(setup(load(write().path)))
    for part in (
        "8 methods",
        "26,122 parameters",
        "8 workers",
        "600 steps of sgd",
        "seeds 0, 1",
        "100 Mbit/s",
    ):
        assert part in text
    assert "20 ms latency" in text
    measured = write(changes={"engine": "processes", "network": None, "compute": None})
    assert "real processes; seconds are measured" in setup(load(measured.path))
    assert panels(load(measured.path))[3].figure.layout.xaxis.title.text == "measured wall seconds"


@pytest.mark.parametrize("changes", [{"dense": []}, {"dense": [], "target": None}])
def test_no_baseline(write: Write, changes: dict[str, Any]) -> None:
    text = words(page(write(changes=changes)))
    assert "fewest message bytes" in text or "ended with the best accuracy" in text
    assert "times fewer" not in text


def test_the_best_of_a_column_is_bold_and_only_reliable_rows_compete(write: Write) -> None:
    cheapest = "signtopk:density=1%,every=8"
    folder = write()
    assert f'<td class="best">{_message_bytes(folder, cheapest)} ±' in page(folder)
    partly = write(diverges={cheapest: (1,)})
    text = page(partly)
    assert "386 (1 of 2)" in text
    assert f"<td>{_message_bytes(partly, cheapest)}</td>" in text
    assert f'<td class="best">{_message_bytes(partly, "topk:density=1%")} ±' in text
    assert headline(load(partly.path), summarise(load(partly.path))).startswith("<code>topk:density=1%<")


def _message_bytes(folder: Folder, method: str) -> str:
    row = next(row for row in summarise(load(folder.path)) if row.method == method)
    assert row.message_bytes_to_target is not None
    return human_bytes(row.message_bytes_to_target)


def test_the_search_marks_what_was_taken_and_its_edges(write: Write) -> None:
    text = page(write())
    assert text.count('<td class="taken">') == 8
    assert "1, at the edge: the largest tried" in text
    assert "0.01, at the edge: the smallest tried" in text


@pytest.mark.parametrize(
    ("tried", "taken", "remark"),
    [
        ([0.1, 1.0, 10.0], 1.0, "1"),
        ([0.1], 0.1, "0.1, the only one tried"),
        ([], 0.1, "0.1, not searched"),
        ([0.1, 1.0], 0.5, "0.5, not among those tried"),
        ([0.1, 1.0], None, MISSING),
    ],
)
def test_remarks(tried: Sequence[float], taken: float | None, remark: str) -> None:
    assert tuning_remark(tried, taken) == remark


def test_without_a_search_the_page_says_so(write: Write) -> None:
    folder = write()
    (folder.path / "tuning.jsonl").write_text("")
    text = page(folder)
    assert "No learning rate was searched" in text
    assert "tuned" not in words(text[: text.index("<script")])


def test_the_report_imports_neither_torch_nor_plotly_early() -> None:
    import subprocess
    import sys

    code = (
        "import sys, types, importlib.util as u; spec = u.find_spec('thinwire');"
        "p = types.ModuleType('thinwire'); p.__path__ = list(spec.submodule_search_locations);"
        "sys.modules['thinwire'] = p; import thinwire.report;"
        "assert not {'torch', 'plotly', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_page_that_cannot_be_written_is_as_it_was(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write()
    page(folder)
    before = (folder.path / "report.html").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match=r"report\.html cannot be written \(No space left on device\)"):
        write_page(load(folder.path), folder.path / "report.html")
    assert (folder.path / "report.html").read_bytes() == before
    assert not list(folder.path.glob("*.partial"))


def test_a_page_is_never_seen_in_part(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written beside and renamed; so is the frontier's."""
    import thinwire.frontier.page as frontier_page
    import thinwire.report.page as report_page

    assert vars(frontier_page)["write_document"] is vars(report_page)["write_document"]
    folder = write()
    seen: list[tuple[bytes, Path]] = []
    monkeypatch.setattr("os.replace", lambda source, target: seen.append((source.read_bytes()[-8:], target)))
    write_page(load(folder.path), folder.path / "report.html")
    # The library first: a page that is there has it beside it.
    assert seen == [
        ((resources.files("thinwire.report") / "vendored" / LIBRARY).read_bytes()[-8:], folder.path / LIBRARY),
        (b"</html>\n", folder.path / "report.html"),
    ]
    assert not (folder.path / "report.html").exists()
