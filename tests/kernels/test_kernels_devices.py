"""A kernel for a device of another kind is one new file; until there is one, the twin in torch runs."""

import ast
import importlib.machinery
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import thinwire
from thinwire.kernels.flat.finite import divide_finite_torch, is_finite_torch
from thinwire.kernels.jit import devices
from thinwire.kernels.jit.devices import body_for

KERNELS = Path(thinwire.__file__).parent / "kernels"
FILES = sorted(path for path in KERNELS.rglob("*.py") if "is_cpu" in path.read_text())


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A file with a kernel for CUDA, beside ``flat/finite.py``."""
    name = "thinwire.kernels.flat.finite_triton"
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    monkeypatch.setitem(sys.modules, name, module)
    devices._body.cache_clear()
    devices._is_installed.cache_clear()
    yield module
    devices._body.cache_clear()
    devices._is_installed.cache_clear()


def test_a_new_file_is_found_by_its_name(another: ModuleType) -> None:
    another.is_finite = lambda x: "from the new file"  # type: ignore[attr-defined]
    assert body_for(is_finite_torch, torch.device("cuda", 1)) is another.is_finite
    assert body_for(divide_finite_torch, torch.device("cuda")) is divide_finite_torch
    assert body_for(is_finite_torch, torch.device("meta")) is is_finite_torch


def test_without_a_file_the_twin_runs() -> None:
    assert body_for(is_finite_torch, torch.device("cuda")) is is_finite_torch


def test_without_the_package_the_twins_run_and_it_is_said_once(
    another: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    another.is_finite = another.divide_finite = lambda x: "never"  # type: ignore[attr-defined]
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else find(name))
    twins = (is_finite_torch, divide_finite_torch)
    with pytest.warns(UserWarning, match="triton is not installed, so that exchanges on cuda run in torch's") as told:
        found = [body_for(twin, torch.device("cuda")) for twin in twins]
    assert found == [*twins]
    assert len(told) == 1


def _of_version(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    package = ModuleType("triton")
    package.__spec__ = importlib.machinery.ModuleSpec("triton", None)
    package.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton", package)


@pytest.mark.parametrize("version", ["2.3.1", "3.2.0", "3.3.1+gitc8757738"])
def test_with_a_package_too_old_the_twins_run_and_it_is_said_once(
    another: ModuleType, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    another.is_finite = another.divide_finite = lambda x: "never"  # type: ignore[attr-defined]
    _of_version(monkeypatch, version)
    twins = (is_finite_torch, divide_finite_torch)
    with pytest.warns(
        UserWarning, match=f"triton is of version {re.escape(version)}, and the kernels need 3.4"
    ) as told:
        found = [body_for(twin, torch.device("cuda")) for twin in twins]
    assert found == [*twins]
    assert len(told) == 1


@pytest.mark.parametrize("version", ["3.4.0", "3.7.0+gitb2d4e1a", "3.10.0rc1", "4.0.0"])
def test_with_a_package_new_enough_the_kernels_run(
    another: ModuleType, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    another.is_finite = lambda x: "from the new file"  # type: ignore[attr-defined]
    _of_version(monkeypatch, version)
    assert body_for(is_finite_torch, torch.device("cuda")) is another.is_finite


def test_the_extra_asks_for_what_the_kernels_need() -> None:
    told = tomllib.loads((KERNELS.parents[2] / "pyproject.toml").read_text())
    (line,) = told["project"]["optional-dependencies"]["triton"]
    assert line.startswith(f"triton>={'.'.join(map(str, devices.OLDEST['triton']))};")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_does_not_lie_on_the_cpu_goes_to_its_device(path: Path) -> None:
    """Where an operation leaves the CPU's way, it calls the twins of operations by ``body_for`` alone."""
    branches = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.If) and "is_cpu" in ast.unparse(node.test)
    ]
    for branch in branches:
        calls = [node for step in branch.body for node in ast.walk(step) if isinstance(node, ast.Call)]
        direct = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
        assert not [name for name in direct if name.endswith("_torch") and not name.startswith("_")]
