"""The recipes of CONTRIBUTING.md and of the kernels' guide, followed word for word in a copy of the package."""

import importlib
import json
import os
import re
import shlex
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
    """All five in one copy, all commands in one process; what is compiled already is taken along."""
    for name in ("src", "tests", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    found = blocks("CONTRIBUTING.md")
    for block in found:
        if block.title:
            apply(block, tmp_path)
    commands: list[list[str]] = []
    paths: list[str] = []
    chosen: list[str] = []
    for line in [line for block in found if block.language == "sh" for line in block.text.splitlines()]:
        program, module, *arguments = shlex.split(line)
        assert program == "python", line
        if module == "-m":
            module, *arguments = arguments
        if module != "pytest":
            commands.append([module, *arguments])
            continue
        files = [argument for argument in arguments if argument.startswith(("src/", "tests/"))]
        paths += files
        chosen += [arguments[arguments.index("-k") + 1]] if "-k" in arguments else [Path(file).name for file in files]
    new = [block.title for block in found if block.language == "python"]
    chosen += [Path(name).name for name in new if name.startswith("src/")]
    options = ["-n", "0", *dict.fromkeys([*paths, "tests/test_layers.py"]), "-k", " or ".join(chosen)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path / "src"), str(tmp_path / "tests")))}
    for command in (
        [str(Path(__file__).with_name("modules_main.py")), json.dumps([*commands, ["pytest", *options]])],
        ["-m", "ruff", "check", *new],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_the_vectors_of_the_guide_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(GUIDE):
        apply(block, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    absolute = importlib.import_module("absolute")

    for numel in (0, 15, 16, 53):
        x = torch.randn(numel, generator=torch.Generator().manual_seed(numel))
        out = torch.empty(numel)
        absolute.absolute(x.numpy(), out.numpy())
        assert torch.equal(out, x.abs())
