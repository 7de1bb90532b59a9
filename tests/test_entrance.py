"""What a newcomer meets first: the import, the help, the version, the catalog."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_cli
from typer.testing import CliRunner

import thinwire
from thinwire.cli import comparison_commands, measuring_commands, shared_memory_commands
from thinwire.cli.application import app
from thinwire.experiments.tasks import task_names
from thinwire.frontier.inputs import DEFAULT_NUMEL
from thinwire.frontier.sweep import BUDGETS
from thinwire.methods import CATALOG
from thinwire.shared_memory import TASKS, VARIANTS

COMMANDS = (
    "methods", "tasks", "compare", "report", "theory", "record", "bench", "probe", "frontier", "inspect", "pareto",
    "plan", "reproduce", "hogwild",
    "speedup",
)  # fmt: skip


def python(*lines: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter."""
    command = [sys.executable, "-c", "\n".join(lines)]
    path = str(Path(thinwire.__file__).parents[1])
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": path})


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, prog_name="thinwire", catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_help_and_version_wait_for_nothing_heavy() -> None:
    asked = [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in COMMANDS)]
    done = python(
        "import sys",
        "from typer.testing import CliRunner",
        "from thinwire import cli",
        f"for asked in {asked}:",
        "    done = CliRunner().invoke(cli.app, asked)",
        "    assert done.exit_code == 0, done.output",
        "heavy = {'torch', 'numba', 'numpy', 'plotly', 'zmq'} & set(sys.modules)",
        "assert not heavy, heavy",
    )
    assert done.returncode == 0, done.stderr


def test_no_compiler_is_imported_before_a_kernel_is_called() -> None:
    done = python(
        "import sys",
        "import thinwire, thinwire.compressors, thinwire.cli.comparing, thinwire.cli.measuring, thinwire.frontier",
        "thinwire.synchronize, thinwire.Worker",
        "assert 'torch' in sys.modules",
        "assert not {'numba', 'llvmlite'} & set(sys.modules)",
        "from thinwire.kernels.reduce.segment_sums import segment_sums",
        "import torch",
        "print(segment_sums(torch.tensor([3.0, -4.0]), torch.tensor([0, 2]), 2).item())",
        "assert 'numba' in sys.modules",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "25.0\n"


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    tree = ast.parse(Path(thinwire.__file__).read_text())
    imported = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    for name in thinwire.__all__:
        assert getattr(thinwire, name) is getattr(sys.modules[imported[name]], name)
        assert name in dir(thinwire)
    assert sorted(thinwire.__all__) == thinwire.__all__
    homes = {name for names in thinwire._HOMES.values() for name in names}  # type: ignore[attr-defined]
    assert homes == {name for name in thinwire.__all__ if imported[name] != "thinwire.errors"}


def test_parts_of_the_package_need_no_import_of_their_own() -> None:
    done = python("import thinwire", "print(thinwire.compressors.TopK(k=3), thinwire.network.Network().latency_s)")
    assert done.stdout == "TopK(density=None, k=3, values=Identity()) 0.0001\n", done.stderr
    with pytest.raises(AttributeError, match="module 'thinwire' has no attribute 'synchronise'"):
        _ = thinwire.synchronise  # type: ignore[attr-defined]


def test_the_version_is_told() -> None:
    assert run("--version").startswith(f"thinwire {thinwire.__version__} (torch ")
    assert thinwire.__version__[0].isdigit()


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=str)
def test_h_is_help(command: tuple[str, ...]) -> None:
    assert run(*command, "-h") == run(*command, "--help")
    assert "Usage: thinwire" in run(*command, "-h")


def test_the_shell_completes_commands_options_and_tasks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def completed(*words: str) -> list[str]:
        monkeypatch.setenv("_THINWIRE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(("thinwire", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        with pytest.raises(SystemExit):
            app(prog_name="thinwire")
        return capsys.readouterr().out.split()

    assert completed("co") == ["compare"]
    assert completed("compare", "--tune-") == ["--tune-steps"]
    assert completed("compare", "--task", "d") == ["digits"]


def test_what_is_written_twice_to_be_quick_is_the_same() -> None:
    assert task_names() == comparison_commands.TASKS
    assert measuring_commands.DEFAULT_NUMEL == DEFAULT_NUMEL
    assert tuple(map(float, measuring_commands.BUDGETS.split(","))) == BUDGETS
    assert shared_memory_commands.SHARED_TASKS == TASKS
    assert shared_memory_commands.SHARED_VARIANTS == VARIANTS
    assert tuple(command.callback.__name__ for command in app.registered_commands if command.callback) == COMMANDS


def test_the_catalog_is_listed_and_written_as_json() -> None:
    shown = run("methods")
    assert all(f"\n{row.name}\n" in f"\n{shown}" for row in CATALOG)
    rows = [json.loads(line) for line in run("methods", "--json", "-").splitlines()]
    assert [row["name"] for row in rows] == [row.name for row in CATALOG]
    for row, entry in zip(rows, CATALOG, strict=True):
        assert [option["name"] for option in row["options"]] == list(entry.options)


@pytest.mark.parametrize("row", CATALOG, ids=lambda row: row.name)
def test_one_method_is_explained(row: object) -> None:
    name = row.name  # type: ignore[attr-defined]
    shown = run("methods", name)
    assert shown.startswith(f"{name}\n")
    assert "made of" in shown
    assert shown.count("\n  option ") == len(row.options)  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= 120


def test_an_unknown_method_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(monkeypatch, "methods", "topkk") == 2
    assert capsys.readouterr().err.startswith("error: unknown method 'topkk'; did you mean topk?")


@pytest.mark.parametrize("options", [(), ("--json", "-")], ids=str)
def test_output_that_nobody_reads_any_more_ends_in_silence(options: tuple[str, ...]) -> None:
    """As in ``thinwire methods | head -1``."""
    environment = {"PYTHONPATH": str(Path(thinwire.__file__).parents[1])}
    command = [sys.executable, "-m", "thinwire", "methods", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
