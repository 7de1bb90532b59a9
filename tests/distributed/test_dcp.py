"""The same parts in a checkpoint of torch.distributed.checkpoint: the same bits, and another number of processes."""

import functools
from pathlib import Path
from typing import Any

import dcp_mains as mains
import pytest
import torch
import torch.distributed.checkpoint as dcp
from test_checkpoints import owed, same

import thinwire
from thinwire.distributed.checkpoint_parts import Stateful
from thinwire.distributed.dcp import load_rank_state, rank_state
from thinwire.errors import ConfigError
from thinwire.experiments.launch import launch


def test_two_processes_go_on_with_the_same_bits_and_three_with_the_same_residual(tmp_path: Path) -> None:
    launch(2, functools.partial(mains.save_all, str(tmp_path)))
    launch(3, functools.partial(mains.load_all, str(tmp_path)))
    two = [torch.load(tmp_path / f"two-{rank}.pt", weights_only=True) for rank in range(2)]
    three = [torch.load(tmp_path / f"three-{rank}.pt", weights_only=True) for rank in range(3)]
    for number in range(len(mains.KINDS)):
        for each in two:
            assert same(each[number]["again"], each[number]["trained"])
            assert not same(each[number]["saved"], each[number]["trained"])
        before: Any = sum(owed(each[number]["saved"]) for each in two) / 2
        after: Any = sum(owed(each[number]) for each in three) / 3
        assert before.norm() > 0
        assert (after - before).norm() < 1e-6 * before.norm()


@pytest.mark.usefixtures("alone")
def test_a_checkpoint_without_ours_is_refused(tmp_path: Path) -> None:
    dcp.save({"epoch": torch.tensor(3)}, checkpoint_id=str(tmp_path / "theirs"))
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        thinwire.synchronize(optimizer, model, "topk:density=10%") as sync,
        pytest.raises(ConfigError, match="the checkpoint has nothing of thinwire, only epoch"),
    ):
        load_rank_state({"model": model, "thinwire": sync}, tmp_path / "theirs")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", [str, Path])
def test_what_is_read_from_is_any_path_and_must_be_there(kind: type, tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with thinwire.synchronize(optimizer, model, "topk:density=10%") as sync:
        parts: dict[str, Stateful] = {"model": model, "thinwire": sync}
        dcp.save(dict(rank_state(parts)), checkpoint_id=str(tmp_path / "ours"))
        load_rank_state(parts, kind(tmp_path / "ours"))
        with pytest.raises(ConfigError, match=r"none is no checkpoint of torch.distributed.checkpoint"):
            load_rank_state(parts, kind(tmp_path / "none"))
        with pytest.raises(ConfigError, match="neither a folder nor a reader was given"):
            load_rank_state(parts)
