"""The page in a real browser, where there is one: every figure is drawn, and nothing is asked of a network."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_folders import Write

from thinwire.report import load, write_page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_every_figure_is_drawn(write: Write, tmp_path: Path) -> None:
    folder = write()
    page = tmp_path / "report.html"
    write_page(load(folder.path), page)
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    plots = re.split(r'<div class="plot[^"]*" id="plot-', done.stdout)[1:]
    assert len(plots) == 8
    for plot in plots:
        assert "main-svg" in plot.partition("</figure>")[0]
    assert "Uncaught" not in done.stderr
