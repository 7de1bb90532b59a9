"""Whatever type torch makes tensors of by default, and wherever: thinwire names the type and the place of its own."""

import ast
import copy
from collections.abc import Iterator
from pathlib import Path

import method_cases
import pytest
import torch
from method_cases import CATALOGUE, Crew, flat, small_model
from torch import nn

import thinwire
from thinwire.methods import parse_method

ROOT = Path(thinwire.__file__).parent
MAKERS = ("empty", "zeros", "ones", "full", "tensor", "arange", "linspace", "eye", "rand", "randn", "scalar_tensor")
FILES = [path for path in sorted(ROOT.rglob("*.py")) if path.name != "transformer.py"]
"""All but a model of torch's own layers, whose parameters are of the default type too."""
DTYPES = (torch.float64, torch.bfloat16)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_tensor_that_is_made_has_its_type_named(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = node.func.value
        if isinstance(owner, ast.Name) and owner.id == "torch" and node.func.attr in MAKERS:
            names = [keyword.arg for keyword in node.keywords]
            assert "dtype" in names, f"line {node.lineno}: torch.{node.func.attr} without dtype"
            assert "device" in names, f"line {node.lineno}: torch.{node.func.attr} without device"


@pytest.fixture(params=DTYPES, ids=str)
def default(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    yield request.param
    torch.set_default_dtype(before)


def gradients_in_f32(model: nn.Module, rank: int, step: int) -> None:
    generator = torch.Generator().manual_seed(1000 * rank + step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float32, device="cpu")


def trained(name: str, start: nn.Module) -> list[bytes]:
    crew = Crew(parse_method(name), 2, model=lambda: copy.deepcopy(start)).run(4)
    return [flat(model).numpy().tobytes() for model in crew.models]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_method_trains_as_it_does_by_default(
    name: str, default: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method_cases, "backward", gradients_in_f32)
    start = small_model()
    torch.set_default_dtype(default)
    found = trained(name, start)
    torch.set_default_dtype(torch.float32)
    assert found == trained(name, start)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_method_trains_where_its_model_lies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the script makes its tensors somewhere else."""
    monkeypatch.setattr(method_cases, "backward", gradients_in_f32)
    start = small_model()
    found = trained(name, start)
    torch.set_default_device("meta")
    try:
        assert trained(name, start) == found
    finally:
        torch.set_default_device(None)
