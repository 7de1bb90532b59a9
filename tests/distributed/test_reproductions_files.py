"""Scripts that lost work with their files, and what is right."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

import thinwire
from thinwire.distributed.checkpoint_parts import Stateful
from thinwire.errors import ConfigError

pytestmark = pytest.mark.usefixtures("alone")


class Script:
    """A model, its optimizer, its handle and its checkpoints."""

    def __init__(self, folder: str | Path, keep: int = 2, method: str = "sgd") -> None:
        self.model = nn.Linear(4, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.handle = thinwire.synchronize(self.optimizer, self.model, method)
        parts: dict[str, Stateful] = {"model": self.model, "optimizer": self.optimizer, "thinwire": self.handle}
        self.checkpoints = thinwire.Checkpoints(folder, parts, keep=keep)

    def step(self) -> None:
        self.model(torch.ones(1, 4)).sum().backward()
        self.optimizer.step()


@pytest.fixture
def script(tmp_path: Path) -> Any:
    made: list[Script] = []

    def make(keep: int = 2, method: str = "sgd") -> Script:
        made.append(Script(tmp_path / "steps", keep, method))
        return made[-1]

    yield make
    for each in made:
        each.checkpoints.close()
        each.handle.close()


def test_m_ckpt_foreign(script: Callable[..., Script], tmp_path: Path) -> None:
    """Before: the folder step-5 was removed, and step-best was a ValueError."""
    (tmp_path / "steps" / "step-5").mkdir(parents=True)
    (tmp_path / "steps" / "step-5" / "samples.png").write_text("the script's own")
    (tmp_path / "steps" / "step-best").mkdir()
    one = script()
    one.step()
    one.checkpoints.save(10)
    assert one.checkpoints.load() == 10
    found = sorted(each for each in os.listdir(tmp_path / "steps") if not each.startswith("."))
    assert found == ["step-000000010", "step-5", "step-best"]
    assert (tmp_path / "steps" / "step-5" / "samples.png").read_text() == "the script's own"


def test_checkpoints_delete(script: Callable[..., Script], tmp_path: Path) -> None:
    """Before: step-500 was removed by save(1); with a copied folder load and save raised ValueError."""
    folder = tmp_path / "steps"
    (folder / "step-500").mkdir(parents=True)
    (folder / "step-500" / "export.safetensors").write_text("the user's own")
    one = script()
    one.checkpoints.save(1)
    shutil.copytree(folder / "step-000000001", folder / "step-000000001-backup")
    assert one.checkpoints.load() == 1
    for step in (2, 3, 4):
        one.checkpoints.save(step)
    assert one.checkpoints.load() == 4
    assert (folder / "step-500" / "export.safetensors").read_text() == "the user's own"
    assert (folder / "step-000000001-backup" / "complete.json").exists()
    assert not (folder / "step-000000001").exists()


def test_m_numpy_lr(script: Callable[..., Script], tmp_path: Path) -> None:
    """Before: saved, and UnpicklingError when it was loaded."""
    one = script(method="topk:k=1")
    one.step()
    one.checkpoints.save(1)
    one.optimizer.param_groups[0]["lr"] = numpy.interp(5, [0, 10], [0.1, 0.0])
    with pytest.raises(
        ConfigError, match=r"the part 'optimizer'\['param_groups'\]\[0\]\['lr'\] is a numpy.float64, which could not be"
    ):
        one.checkpoints.save(2)
    assert one.checkpoints.load() == 1
    one.optimizer.param_groups[0]["lr"] = float(numpy.interp(5, [0, 10], [0.1, 0.0]))
    one.checkpoints.save(2)
    assert one.checkpoints.load() == 2


def test_resave_torn(script: Callable[..., Script], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: the checkpoint of step 5 was refused as damaged, and with keep=1 there was no other."""
    one = script(keep=1)
    one.checkpoints.save(5)
    generator = torch.get_rng_state()
    torch.rand(1)
    real = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == "complete.json":
            raise KeyboardInterrupt  # stands for kill -9 at this moment
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            one.checkpoints.save(5)
    assert one.checkpoints.load() == 5
    assert torch.equal(torch.get_rng_state(), generator)


def test_two_handles(tmp_path: Path) -> None:
    """Before: ConfigError, 2 of the parts are thinwire's."""
    parts: dict[str, Any] = {}
    for name in "gd":
        model = nn.Linear(8, 8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        parts |= {name: model, f"sync {name}": thinwire.synchronize(optimizer, model, "topk:k=1")}
        model(torch.ones(1, 8)).sum().backward()
        optimizer.step()
    checkpoints = thinwire.Checkpoints(tmp_path, parts)
    checkpoints.save(1)
    weights = {name: parts[name].weight.detach().clone() for name in "gd"}
    for name in "gd":
        nn.init.zeros_(parts[name].weight)
    assert checkpoints.load() == 1
    assert all(torch.equal(parts[name].weight, weights[name]) for name in "gd")
    assert not torch.equal(weights["g"], weights["d"])
    checkpoints.close()
    for name in "gd":
        parts[f"sync {name}"].close()


@pytest.mark.parametrize("kind", [str, Path])
def test_m_jsonlines(kind: type, tmp_path: Path) -> None:
    """Before: AttributeError, 'str' object has no attribute 'parent'."""
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = thinwire.LayerReport(sink=thinwire.JsonLines(kind(tmp_path / "layers.jsonl")), every=1)
    with thinwire.synchronize(optimizer, model, "topk:k=1", layer_report=report):
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
    assert (tmp_path / "layers.jsonl").read_text().count("\n") == 2
