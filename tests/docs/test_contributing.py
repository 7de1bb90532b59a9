"""The recipes of CONTRIBUTING.md and of the kernels' guide, followed word for word in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
GUIDE = "src/thinwire/kernels/README.md"
RECIPES = ("compressor", "method", "kernel", "exchange", "command")
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in _BLOCK.findall((ROOT / page).read_text())]


def apply(block: Block, root: Path) -> None:
    """Write the file of a block, or change it; each part of a diff must fit in exactly one place."""
    path = root / block.title
    if block.language != "diff":
        assert not path.exists(), block.title
        path.write_text(block.text)
        return
    for part in block.text.split("@@\n"):
        lines = part.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        assert path.read_text().count(before) == 1, f"{block.title} does not have this once:\n{before}"
        path.write_text(path.read_text().replace(before, after))


def test_every_recipe_is_at_most_a_page_and_is_code() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert re.findall(r"^## Add an? (\w+)$", text, flags=re.MULTILINE) == list(RECIPES)
    for section in text.split("## Add ")[1:]:
        assert len(section.splitlines()) < 130, section[:20]


def test_the_recipes_work_as_they_are_written(tmp_path: Path) -> None:
    """All five in one copy, and their tests in one process; what is compiled already is taken along."""
    for name in ("src", "tests", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    found = blocks("CONTRIBUTING.md")
    for block in found:
        if block.title:
            apply(block, tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path / "src"), str(tmp_path / "tests")))}

    def run(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    paths: list[str] = []
    chosen: list[str] = []
    for line in [line for block in found if block.language == "sh" for line in block.text.splitlines()]:
        program, *arguments = re.findall(r'"[^"]*"|\S+', line)
        assert (program, arguments[0]) == ("python", "-m"), line
        arguments = [argument.strip('"') for argument in arguments]
        if arguments[1] != "pytest":
            run(*arguments)
            continue
        if "-k" in arguments:
            chosen.append(arguments.pop())
            arguments.pop()
        else:
            chosen += [Path(path).stem for path in arguments[2:] if path.startswith(("src", "tests"))]
        paths += [path for path in arguments[2:] if path.startswith(("src", "tests"))]
    new = [block.title for block in found if block.language == "python"]
    chosen += [Path(name).stem for name in new if name.startswith("src")]
    run("-m", "pytest", "-n", "0", *dict.fromkeys([*paths, "tests/test_layers.py"]), "-k", " or ".join(chosen))
    run("-m", "ruff", "check", *new)
    run("-m", "ruff", "format", "--check", *new)


def test_the_vectors_of_the_guide_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(GUIDE):
        apply(block, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import absolute

    for numel in (0, 15, 16, 53):
        x = torch.randn(numel, generator=torch.Generator().manual_seed(numel))
        out = torch.empty(numel)
        absolute.absolute(x.numpy(), out.numpy())
        assert torch.equal(out, x.abs())
