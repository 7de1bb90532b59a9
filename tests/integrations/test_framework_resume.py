"""The examples of the frameworks: what they promise, and that a resumed run has the bits of an uninterrupted one."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

LOCAL_STEPS, EVERY_STEP = "signtopk:density=2%,every=5", "signtopk:density=2%"


class Case(NamedTuple):
    framework: str
    example: str
    middle: str  # checkpoints, by the names that the framework gives them
    end: str
    files: str  # of each rank, after the name of a checkpoint
    published: str  # the weights, after the name of a checkpoint
    resume: str  # what goes on from the middle, {} being the folder
    length: tuple[str, ...]


CASES = [
    Case(
        "accelerate", "accelerate_digits", "epoch-1", "epoch-2", "/thinwire/step-*", "/model.safetensors",
        "1", ("--epochs", "2"),
    ),
    Case(
        "transformers", "transformers_text", "checkpoint-6", "checkpoint-12", "/thinwire/step-*", "/model.safetensors",
        "{}/checkpoint-6", ("--steps", "12", "--save-steps", "6"),
    ),
    Case(
        "lightning", "lightning_digits", "epoch=0.ckpt", "epoch=1.ckpt", ".thinwire/step-*", "",
        "{}/epoch=0.ckpt", ("--epochs", "2"),
    ),
]  # fmt: skip
INSTALLED = [case for case in CASES if importlib.util.find_spec(case.framework) is not None]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where the examples have saved, and what they have printed."""
    folder = tmp_path_factory.mktemp("frameworks")
    if not INSTALLED:
        return folder, ""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    cases = [[case.example, case.middle, case.resume, *case.length] for case in INSTALLED]
    plan = json.dumps({"cases": cases, "methods": [LOCAL_STEPS, EVERY_STEP]})
    mains = [str(Path(__file__).with_name("resume_mains.py")), str(folder), plan]
    done = subprocess.run([*command, *mains], cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.framework)
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(case: Case, launched: tuple[Path, str]) -> None:
    if case not in INSTALLED:
        pytest.skip(f"{case.framework} is not installed; it is one of the extras")
    folder, printed = launched
    for method in (LOCAL_STEPS, EVERY_STEP):
        runs = [folder / case.example / method / part for part in ("whole", "resumed")]
        whole, resumed = ([saved(run, case.end + case.files, rank) for rank in range(2)] for run in runs)
        for rank in range(2):
            assert_same(whole[rank], resumed[rank], f"{method}, rank {rank}")
        # What makes the comparison worth something: in the middle every rank has state of its own.
        middle = [saved(runs[0], case.middle + case.files, rank) for rank in range(2)]
        residuals = [residual_of(state) for state in middle]
        assert all(residual.any() for residual in residuals)
        assert not torch.equal(*residuals)
        models = [torch.cat([part.flatten() for part in state["model"].values()]) for state in middle]
        assert torch.equal(*models) == (method == EVERY_STEP)
        if method == LOCAL_STEPS:
            assert_published(weights(runs[0] / (case.middle + case.published)), middle[0]["thinwire"]["worker"])
    pattern = r"^(\S+): (.*), ([\d,]+) message bytes; dense gradients: ([\d,]+)"
    lines = re.findall(pattern, printed, re.MULTILINE)[4 * INSTALLED.index(case) :][:4]
    assert [method for method, *_ in lines] == [LOCAL_STEPS, LOCAL_STEPS, EVERY_STEP, EVERY_STEP]
    assert lines[0] == lines[1]
    assert lines[2] == lines[3]
    for method, _, num_bytes, dense in lines:
        # At every step embeddings are sent in full.
        times_fewer = 100 if method == LOCAL_STEPS else 4
        assert times_fewer * int(num_bytes.replace(",", "")) < int(dense.replace(",", ""))


def saved(run: Path, pattern: str, rank: int) -> dict[str, Any]:
    (file,) = run.glob(f"{pattern}/rank-{rank:05d}-of-00002.pt")
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


def weights(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".ckpt":
        state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
        return state
    from safetensors.torch import load_file

    return load_file(file)


def assert_published(state: dict[str, torch.Tensor], worker: dict[str, Any]) -> None:
    """What the framework saves for others to load is the model after the last exchange, not that of process 0."""
    references = {name: tensor for name, tensor in worker["tensors"].items() if name.startswith("update.reference.")}
    assert len(references) >= 4
    for name, tensor in references.items():
        assert torch.equal(state[name.removeprefix("update.reference.")], tensor), name


def residual_of(state: dict[str, Any]) -> torch.Tensor:
    ours = state["thinwire"]
    tensors = ours.get("worker", ours)["tensors"]
    return torch.cat([value.flatten() for name, value in tensors.items() if "residual" in name])


def assert_same(one: Any, other: Any, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}, {key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where}, {place}")
    else:
        assert one == other, where
