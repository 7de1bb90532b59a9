"""The README and the pages of docs/: links lead somewhere, commands and methods exist, the figure is its data's."""

import ast
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import typer

from thinwire.cli.application import app
from thinwire.methods import CATALOG, parse_method

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("slow_link_figure", ROOT / "benchmarks/slow_link_figure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figure_is_what_the_script_makes_of_the_records() -> None:
    figures = drawing().figures()
    assert len(figures) == 2
    for path, content in figures.items():
        assert path.read_text() == content, "run: python benchmarks/slow_link_figure.py"


def test_the_table_has_the_seconds_of_the_figure() -> None:
    table = (ROOT / "docs/slow-links.md").read_text()
    for row in json.loads((ROOT / "docs/data/slow_link.json").read_text())["rows"]:
        name = f"`{row['call']}`, `{row['way']}`" if "call" in row else row["way"]
        assert re.search(rf"^\| {re.escape(name)}[^|]*\| {row['seconds']:.1f} s", table, flags=re.MULTILINE), name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@NAMED
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = page.read_text()
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    for link in found:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@NAMED
def test_every_method_string_parses(page: Path) -> None:
    # sgd takes no options: where some follow, it is the optimizer.
    names = "|".join(row.name for row in CATALOG if row.options)
    for found in re.findall(rf"(?<!--optimizer )\b(?:{names}):[a-z]+=[\w.%,=-]+", page.read_text()):
        parse_method(found.rstrip(",."))


@NAMED
def test_every_command_has_the_options_that_are_shown(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    blocks = re.findall(r"```\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    for line in lines:
        found = re.search(r"(?:^|-m )thinwire ([a-z]+)\b(.*)", line.split("  #")[0].split("   ")[0])
        if found is None:
            continue
        options = {option for param in commands[found[1]].params for option in param.opts}
        for option in re.findall(r"(?<!\S)(--[a-z-]+)", found[2]):
            assert option in options, line


@pytest.mark.parametrize("path", sorted((ROOT / "src/thinwire").rglob("*.py")), ids=lambda path: path.stem)
def test_what_docstrings_refer_to_exists(path: Path) -> None:
    for name in re.findall(r":\w+:`~?(thinwire[\w.]*)`", path.read_text()):
        assert is_defined(name), f"{path.name} refers to {name}"


def is_defined(name: str) -> bool:
    """Whether a module of that name is there, or the file of the longest part of it has the rest."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath("src", *parts[:count])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return count == len(parts) or parts[count] in names_in(ast.parse(file.read_text()))
    return False


def names_in(tree: ast.Module) -> set[str]:
    """What a module defines or imports."""
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return found | {alias.asname or alias.name for node in imports for alias in node.names} | strings
