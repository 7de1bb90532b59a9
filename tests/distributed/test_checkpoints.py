"""Checkpoints: killed at any moment, resumed with the same bits; with another number of processes, nothing is lost."""

import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kill_mains as mains
import pytest
import torch

SIZE = 2
KILLS = 20


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    """Processes that begin as copies of one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kill_preload"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        yield context


class Launcher:
    """Starts all processes of a training, each time with a store of its own."""

    def __init__(self, context: Any, folder: Path) -> None:
        self._context = context
        self._folder = folder
        self._count = 0

    def start(self, main: Any, size: int, *args: Any) -> list[Any]:
        self._count += 1
        store = str(self._folder / f"store-{self._count}")
        processes = [self._context.Process(target=main, args=(rank, size, store, *args)) for rank in range(size)]
        for process in processes:
            process.start()
        return processes

    def finish(self, main: Any, size: int, *args: Any) -> None:
        processes = self.start(main, size, *args)
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * size


def end_like_torchrun(processes: list[Any]) -> None:
    """Those that are left have a moment to notice, and are then ended: they may be waiting for one to begin."""
    for process in processes:
        process.join(1.0)
        if process.exitcode is None:
            process.kill()


def results(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(SIZE)]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


@pytest.mark.parametrize("kind", ["signtopk:density=10%,every=4", "hook: topk:density=10%"])
def test_killed_at_random_moments_it_ends_with_the_bits_of_an_uninterrupted_run(
    kind: str, context: Any, tmp_path: Path
) -> None:
    launcher = Launcher(context, tmp_path)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    launcher.finish(mains.run, SIZE, kind, str(tmp_path / "whole-steps"), str(tmp_path / "whole"))
    moments = random.Random(5)
    args = (kind, str(tmp_path / "killed-steps"), str(tmp_path / "killed"))
    for number in range(KILLS // 2):
        # A step takes some milliseconds, and so does a checkpoint; before step 0 the processes find each other.
        step = moments.randrange(-1, mains.STEPS)
        victim = number % SIZE
        processes = launcher.start(mains.run, SIZE, *args, (victim, step, moments.uniform(0.0, 0.03)))
        processes[victim].join(120)
        end_like_torchrun(processes)
        assert processes[victim].exitcode == -signal.SIGKILL
        # The other one notices, or is ended; or all that it needed of the victim had come.
        assert processes[1 - victim].exitcode in (0, 2, -signal.SIGKILL)
    launcher.finish(mains.run, SIZE, *args)
    killed, whole = results(tmp_path / "killed"), results(tmp_path / "whole")
    # Else the same bits would say nothing: a run from the first step ends with them too.
    assert all(each.pop("begun") > 0 for each in killed)
    assert all(each.pop("begun") == 0 for each in whole)
    assert same(killed, whole)


@pytest.mark.parametrize("kind", ["signtopk:density=10%,every=4", "hook: topk:density=10%"])
def test_four_processes_then_three_then_four(kind: str, context: Any, tmp_path: Path) -> None:
    launcher = Launcher(context, tmp_path)
    before = None
    for size, end in ((4, 10), (3, 20), (4, 30)):
        launcher.finish(mains.stages, size, kind, str(tmp_path / "steps"), str(tmp_path), end)
        found = [torch.load(tmp_path / f"{end}-rank-{rank}.pt", weights_only=True) for rank in range(size)]
        if before is not None:
            loaded = sum(owed(each["loaded"]) for each in found) / size
            assert (loaded - before).norm() < 1e-6 * before.norm()
        before = sum(owed(each["trained"]) for each in found) / size
        assert before.norm() > 0


def owed(state: dict[str, Any]) -> Any:
    """``m + reference - x``: what a worker has done that the common model has not."""
    total = mains.residual(state)
    tensors = state["handle"].get("worker", state["handle"])["tensors"]
    names = sorted(state["model"])
    if f"update.reference.{names[0]}" in tensors:
        total = total + torch.cat(
            [(tensors[f"update.reference.{n}"].double() - state["model"][n].double()).reshape(-1) for n in names]
        )
    return total
