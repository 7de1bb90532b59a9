"""Checkpoints as files: whole or not there, apart from what is not theirs, never of what could not be gone on with."""

import datetime
import functools
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import files_mains
import kill_mains as mains
import numpy as np
import pytest
import torch

import thinwire
from thinwire.distributed import checkpoints
from thinwire.distributed.checkpoint_parts import Stateful
from thinwire.distributed.dcp import rank_state
from thinwire.errors import ConfigError, NumericsError
from thinwire.experiments.launch import launch


@pytest.mark.usefixtures("alone")
def test_what_is_incomplete_is_not_loaded_and_what_is_damaged_is_passed_over(tmp_path: Path) -> None:
    model = mains.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with thinwire.synchronize(optimizer, model, "topk:density=10%") as sync:
        parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "thinwire": sync}
        checkpoints = thinwire.Checkpoints(tmp_path / "steps", parts, keep=2)
        assert checkpoints.load() is None
        assert checkpoints.steps() == []
        for step in (1, 2, 3):
            with torch.no_grad():
                model.get_parameter("0.weight").fill_(step)
            checkpoints.save(step)
        assert steps_in(tmp_path / "steps") == ["step-000000002", "step-000000003"]
        assert checkpoints.steps() == [2, 3]
        assert checkpoints.load(2) == 2
        assert bool((model.get_parameter("0.weight") == 2).all())
        assert checkpoints.load(1) is None
        # As if an earlier version had died just before the checkpoint counted.
        (tmp_path / "steps/step-000000003/complete.json").unlink()
        assert checkpoints.load() == 2
        with pytest.raises(ConfigError, match="holds a checkpoint of step 2, and one of step 1 was to be saved beside"):
            checkpoints.save(1)
        checkpoints.save(4)
        damage(tmp_path / "steps/step-000000004")
        with pytest.warns(UserWarning, match=r"step-000000004/.* is damaged: .*; that of step 2 was loaded instead"):
            assert checkpoints.load() == 2
        # Training goes on from there, and what is damaged gives way.
        checkpoints.save(3)
        assert steps_in(tmp_path / "steps") == ["step-000000002", "step-000000003", "step-000000003-2"]
        assert checkpoints.load() == 3
        with pytest.raises(ConfigError, match="has no scheduler, only model, optimizer, thinwire"):
            thinwire.Checkpoints(tmp_path / "steps", {**parts, "scheduler": optimizer}).load()
        with pytest.raises(ConfigError, match=r"none of the parts model is thinwire's; give what thinwire.synchronize"):
            thinwire.Checkpoints(tmp_path, {"model": model})
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match=r"file cannot be written \("):
            thinwire.Checkpoints(tmp_path / "file", parts).save(5)
        for step in checkpoints.steps():
            damage(next((tmp_path / "steps").glob(f"step-{step:09d}*/complete.json")).parent)
        with pytest.raises(ConfigError, match=r"is damaged: .*There is no other one to go on from"):
            checkpoints.load()


def steps_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.glob("step-*"))


def damage(folder: Path) -> None:
    (file,) = folder.glob("*.pt")
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    file.write_bytes(contents)


class Alone:
    """A training of one process."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.model = torch.nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.handle = thinwire.synchronize(self.optimizer, self.model, "topk:k=1")
        self.parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer, "thinwire": self.handle}
        self.checkpoints = thinwire.Checkpoints(folder, self.parts, keep=keep)

    def save(self, step: int, value: float) -> None:
        with torch.no_grad():
            self.model.weight.fill_(value)
        self.checkpoints.save(step)

    def loaded(self) -> float:
        torch.nn.init.zeros_(self.model.weight)
        self.checkpoints.load()
        return float(self.model.weight.detach()[0, 0])


@pytest.fixture
def training(tmp_path: Path, alone: None) -> Iterator[Alone]:
    made = Alone(tmp_path / "steps")
    yield made
    made.checkpoints.close()
    made.handle.close()


TORN = [
    b"", b'{"step": 3, "fi', b"[]", b"{}", b"\xff\xfe", b'{"step": 2, "files": [[1, 2]]}', b'{"step": 3, "files": []}',
    b'{"step": 3, "files": [["many", 2]]}', b"[" * 100_000, b'{"step": ' + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("contents", TORN, ids=lambda contents: repr(contents[:20]))
def test_a_list_that_cannot_be_read_is_passed_over_with_a_warning(contents: bytes, training: Alone) -> None:
    training.save(2, 2.0)
    training.save(3, 3.0)
    (training.folder / "step-000000003" / "complete.json").write_bytes(contents)
    with pytest.warns(UserWarning, match=r"step-000000003 is damaged: complete.json .*; that of step 2 was loaded"):
        assert training.loaded() == 2.0
    training.save(3, 3.5)
    # It can no longer be known whose it was; it is never looked at again.
    assert training.loaded() == 3.5
    assert (training.folder / "step-000000003" / "complete.json").read_bytes() == contents


@pytest.mark.parametrize("stage", ["file", "list", "rename"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_nothing_and_the_next_one_works(
    failure: BaseException, stage: str, training: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.save(5, 1.0)
    before = {path: path.read_bytes() for path in training.folder.rglob("*") if path.is_file()}
    real = os.replace, os.rename

    def replace(source: Path, target: Path) -> None:
        if (stage == "list") == (Path(target).name == "complete.json") and stage != "rename":
            raise failure
        real[0](source, target)

    def rename(source: Path, target: Path) -> None:
        if stage == "rename":
            raise failure
        real[1](source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        patch.setattr(os, "rename", rename)
        with pytest.raises((ConfigError, KeyboardInterrupt)) as raised:
            training.save(5, 2.0)
    refused = r"could not be written to .* by processes \[0\]: .*No space left on device.*What was there still counts"
    assert raised.value is failure or (isinstance(failure, OSError) and re.search(refused, str(raised.value)))
    assert {path: path.read_bytes() for path in training.folder.rglob("*") if path.is_file()} == before
    assert training.loaded() == 1.0
    training.save(5, 3.0)
    assert training.loaded() == 3.0
    assert steps_in(training.folder) == ["step-000000005-2"]
    training.save(5, 4.0)
    assert training.loaded() == 4.0
    assert training.checkpoints.steps() == [5]


def test_what_a_killed_process_left_is_removed_by_the_next_save(training: Alone) -> None:
    (training.folder / ".thinwire-0123456789ab").mkdir(parents=True)
    (training.folder / ".thinwire-0123456789ab" / "rank-00000-of-00001.pt.partial").write_bytes(b"half")
    training.save(1, 1.0)
    assert sorted(os.listdir(training.folder)) == [".thinwire.lock", "step-000000001"]


@pytest.mark.parametrize("name", ["step-best", "step-7", "step-000000007-old", "step-0000000007", "step-000000001.zip"])
def test_what_is_not_ours_is_left_alone(name: str, training: Alone) -> None:
    (training.folder / name).mkdir(parents=True)
    (training.folder / name / "complete.json").write_text('{"step": 7, "files": [[1, 2]]}')
    for step in (1, 2, 3):
        training.save(step, step)
        # What the script puts into a checkpoint's folder is not ours either.
        (training.folder / f"step-{step:09d}" / "samples.png").write_text(str(step))
    assert training.loaded() == 3.0
    assert (training.folder / name / "complete.json").exists()
    assert os.listdir(training.folder / "step-000000001") == ["samples.png"]
    assert training.checkpoints.steps() == [2, 3]


def test_a_folder_in_the_way_is_passed_by(training: Alone) -> None:
    (training.folder / "step-000000001").mkdir(parents=True)
    (training.folder / "step-000000001" / "mine").write_text("")
    training.save(1, 1.0)
    assert training.loaded() == 1.0
    assert steps_in(training.folder) == ["step-000000001", "step-000000001-2"]
    assert os.listdir(training.folder / "step-000000001") == ["mine"]


def test_a_checkpoint_of_an_earlier_version_is_found(training: Alone) -> None:
    training.save(1, 1.0)
    training.save(2, 2.0)
    for folder in training.folder.glob("step-*"):
        listed = json.loads((folder / "complete.json").read_text())
        del listed["saved"]
        (folder / "complete.json").write_text(json.dumps(listed))
    assert training.loaded() == 2.0
    training.save(3, 3.0)
    assert training.checkpoints.steps() == [2, 3]


def test_two_objects_do_not_save_to_one_folder(training: Alone) -> None:
    other = Alone(training.folder)
    training.save(1, 1.0)
    with pytest.raises(ConfigError, match=r"process \d+ on .* saves to .*steps as well.*several handles .* into one"):
        other.save(1, 2.0)
    assert other.loaded() == 1.0  # reading is free
    training.checkpoints.close()
    other.save(2, 2.0)
    assert training.loaded() == 2.0
    other.checkpoints.close()
    other.handle.close()


def test_a_training_that_begins_again_may_replace_later_checkpoints(training: Alone) -> None:
    training.save(8, 8.0)
    training.save(9, 9.0)
    training.checkpoints.save(1, replaces=True)
    assert training.checkpoints.steps() == [1, 9]
    assert training.checkpoints.load() == 1  # what was saved last
    training.checkpoints.save(2, replaces=True)
    assert training.checkpoints.steps() == [1, 2]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_model_that_is_not_finite_is_refused_unless_told(bad: float, training: Alone) -> None:
    training.save(1, 1.0)
    with torch.no_grad():
        training.model.bias[1] = bad
    with pytest.raises(
        NumericsError, match=r"'bias' of the part 'model' holds NaN or inf on process 0, .*needs_finite=F"
    ):
        training.checkpoints.save(2)
    assert training.checkpoints.steps() == [1]
    training.checkpoints.save(2, needs_finite=False)
    assert training.checkpoints.steps() == [1, 2]


def test_a_model_that_others_save_must_be_finite_and_is_left_alone(training: Alone, tmp_path: Path) -> None:
    parts = {"thinwire": training.handle}
    checkpoints = thinwire.Checkpoints(tmp_path / "beside", parts, elsewhere=[training.model])
    checkpoints.save(1)
    with torch.no_grad():
        training.model.bias[1] = 7.0
    assert checkpoints.load() == 1
    assert float(training.model.bias.detach()[1]) == 7.0
    with torch.no_grad():
        training.model.bias[1] = math.nan
    with pytest.raises(NumericsError, match="'bias' of the part 'model 1 of the script' holds NaN"):
        checkpoints.save(2)
    checkpoints.close()


def test_a_mask_may_be_infinite_and_statistics_may_not_be_nan(training: Alone) -> None:
    training.model.register_buffer("mask", torch.full((3, 3), -math.inf).triu(1))
    training.save(1, 1.0)
    training.model.register_buffer("mean", torch.tensor([1.0, math.nan]))
    with pytest.raises(NumericsError, match="'mean' of the part 'model'"):
        training.save(2, 2.0)


class Odd:
    """A part with a state of its own."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return {"deep": [{"down": self.state}]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.state = saved["deep"][0]["down"]


UNREADABLE = [np.float64(1.0), np.int64(1), np.ones(2), np.random.default_rng(0), lambda: 0, Odd(None), Path("here"),
              datetime.timedelta(1), iter("ab")]  # fmt: skip


@pytest.mark.parametrize("value", UNREADABLE, ids=lambda value: type(value).__name__)
def test_what_could_not_be_read_is_refused_by_its_place(value: Any, training: Alone) -> None:
    training.parts["odd"] = odd = Odd(value)
    checkpoints = thinwire.Checkpoints(training.folder, training.parts)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    where = re.escape(f"the part 'odd'['deep'][0]['down'] is a {kind}, which could not be read back")
    for save in (lambda: checkpoints.save(1), lambda: rank_state(training.parts)):
        with pytest.raises(ConfigError, match=where):
            save()
    assert not checkpoints.steps()
    for sound in (1.5, True, None, "text", b"bytes", (1, [2.0, {3: torch.ones(2, dtype=torch.bfloat16)}]), {4, 5}):
        odd.state = sound
        checkpoints.save(1)
        odd.state = "lost"
        assert checkpoints.load() == 1
        assert same_value(odd.state, sound)
    checkpoints.close()


def same_value(first: Any, second: Any) -> bool:
    return repr(first) == repr(second)


def test_two_processes_fail_together_and_several_handles_are_resized(tmp_path: Path) -> None:
    launch(2, functools.partial(files_mains.fail_and_save, str(tmp_path)))
    before = [torch.load(tmp_path / f"before-{rank}.pt", weights_only=True) for rank in range(2)]
    launch(1, functools.partial(files_mains.resume, str(tmp_path)))
    after = torch.load(tmp_path / "after-0.pt", weights_only=True)
    for name in ("g", "d"):
        # What is owed to each common model is owed still, and to no other one.
        owed_before = sum((files_mains.residual(state[name]) for state in before), start=torch.zeros(())) / 2
        owed_after = files_mains.residual(after[name])
        assert owed_before.norm() > 0
        assert (owed_after - owed_before).norm() < 1e-6 * owed_before.norm()
    assert files_mains.residual(after["g"]).numel() != files_mains.residual(after["d"]).numel()


@pytest.mark.parametrize("device", [torch.device("cuda", 1), None])
def test_islands_agree_by_way_of_the_models_device(
    device: torch.device | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that wants tensors on an accelerator would else be given those of number 0 on every process."""
    given: list[torch.device] = []
    parts = SimpleNamespace(is_everyone=False, device=device)
    monkeypatch.setattr(checkpoints, "Parts", lambda parts_of_user, elsewhere: parts)
    monkeypatch.setattr(checkpoints, "Transport", lambda *, device: given.append(device))
    thinwire.Checkpoints(tmp_path, {})
    assert given == [device or torch.device("cpu")]
