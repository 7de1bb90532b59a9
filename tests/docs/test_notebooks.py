"""The notebooks run from top to bottom, and the index of the examples is complete."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = {
    "compare_methods": r"signtopk:density=2%,every=4 +0\.[89]\d+ .* \d{3} .*\nsgd +\d\.\d\d s at 10 Mbit/s +0\.0\d\d s",
    "add_it_to_your_script": r"before: accuracy 0\.[89]\d+\n\nafter:  accuracy 0\.[89]\d+\n.*: \d\d times fewer",
}
"""What each prints."""


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_keeps_no_output(name: str, tmp_path: Path) -> None:
    path = EXAMPLES / f"{name}.ipynb"
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("notebook_main.py")), str(path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(NOTEBOOKS[name], done.stdout, flags=re.DOTALL), done.stdout


def test_every_example_is_in_the_index() -> None:
    kinds = (".py", ".ipynb", ".yaml")
    found = (*EXAMPLES.iterdir(), *(EXAMPLES / "launchers").iterdir())
    there = {path.relative_to(EXAMPLES).as_posix() for path in found if path.suffix in kinds}
    rows = re.findall(r"^\| \[(\S+)\]\((\S+)\) \| (.+) \| (.+) \|$", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert {name for name, _, _, _ in rows} == there
    assert there >= {f"{name}.ipynb" for name in NOTEBOOKS}
    for name, target, _, start in rows:
        assert name == target
        assert f"examples/{name}" in start or name.endswith(".ipynb")
        # How a file says that it is started is how the index says it.
        assert start.strip("`") in (EXAMPLES / name).read_text() or name.endswith(".ipynb")
