"""Frameworks that shard a model within replicas: their own bits without compression, and resumed ones with it."""

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import placement_mains
import pytest
import torch

from thinwire.experiments.launch import launch

REPLICAS, SHARDS = 2, 2
SIZE = REPLICAS * SHARDS
Found = list[dict[str, Any]]
"""What the processes have found, by rank."""


def run(framework: str, folder: Path) -> Found:
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed; it is one of the extras")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(SIZE)]
    main = str(Path(__file__).with_name(f"{framework}_sharded_mains.py"))
    done = subprocess.run([*command, main, str(folder)], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return loaded(folder)


def loaded(folder: Path) -> Found:
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(SIZE)]


@pytest.fixture(scope="module")
def accelerate(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return run("accelerate", tmp_path_factory.mktemp("accelerate"))


@pytest.fixture(scope="module")
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return run("lightning", tmp_path_factory.mktemp("lightning"))


@pytest.fixture(scope="module")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return run("transformers", tmp_path_factory.mktemp("transformers"))


def assert_resumed(found: Found, kind: str) -> None:
    """A run that was resumed has the bits of a whole one, the handle's memory and counts among them."""
    for rank, each in enumerate(found):
        whole, resumed = each[kind]["whole"], each[kind]["resumed"]
        assert_same(whole["model"], resumed["model"], f"{kind}, rank {rank}")
        assert_same(whole["handle"], resumed["handle"], f"{kind}, rank {rank}")
        assert residual_of(whole["handle"]).any()
    for shard in range(SHARDS):  # each replica has a memory of its own, and the same shard
        one, other = (found[replica * SHARDS + shard][kind]["whole"] for replica in range(REPLICAS))
        assert_same(one["model"], other["model"], f"{kind}, shard {shard}")
        assert not torch.equal(residual_of(one["handle"]), residual_of(other["handle"]))


def residual_of(handle: dict[str, Any]) -> torch.Tensor:
    return torch.cat([value.flatten() for name, value in handle["tensors"].items() if "residual" in name])


def assert_same(one: Any, other: Any, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}, {key}")
    else:
        assert one == other, where


def test_accelerate_has_its_own_bits_without_compression(accelerate: Found) -> None:
    for rank, each in enumerate(accelerate):
        equal = each["equal"]
        assert_same(equal["plain"], equal["sgd"], f"rank {rank}")
        assert equal["sgd bytes"] > 0
        assert equal["sgd replicas"] == equal["plain replicas"] == REPLICAS  # its configuration is as it was


@pytest.mark.parametrize("kind", ["SHARDED_STATE_DICT", "FULL_STATE_DICT"])
def test_accelerate_resumes_with_the_same_bits(kind: str, accelerate: Found) -> None:
    assert_resumed(accelerate, kind)
    for each in accelerate:
        run = each[kind]
        assert run["whole"]["bytes"] == run["resumed"]["bytes"] < each["equal"]["sgd bytes"]  # of twice as many steps
        assert residual_of(run["middle"]).any()
        quarter = len(run["losses"]) // 4
        assert sum(run["losses"][-quarter:]) < 0.7 * sum(run["losses"][:quarter])


def test_lightning_has_its_own_bits_without_compression(lightning: Found) -> None:
    for rank, each in enumerate(lightning):
        for ours, own in (("sgd", "plain"), ("crossed", "plain crossed")):
            assert_same(each[own]["model"], each[ours]["model"], f"{ours}, rank {rank}")
            assert each[ours]["steps"] == 6
            assert each[ours]["losses"] == each[own]["losses"]  # it has seen the same data
            assert torch.equal(each[ours]["validated"], each[own]["validated"])
        assert each["sgd bytes"] > 0


def test_replicas_of_a_module_under_tensor_parallelism_have_the_bits_of_one_that_is_sharded_over_them(
    lightning: Found,
) -> None:
    for rank, each in enumerate(lightning):
        assert_same(each["plain parallel"]["whole"], each["parallel"]["whole"], f"rank {rank}")
        assert each["plain parallel"]["losses"] == each["parallel"]["losses"]


@pytest.mark.parametrize("kind", ["distributed", "full"])
def test_lightning_resumes_with_the_same_bits(kind: str, lightning: Found) -> None:
    assert_resumed(lightning, kind)
    for each in lightning:
        whole, resumed = each[kind]["whole"], each[kind]["resumed"]
        assert whole["losses"][-len(resumed["losses"]) :] == resumed["losses"]
        assert each[kind]["bytes"] == each[kind]["resumed bytes"] < each["sgd bytes"]  # of half as many steps
        assert len(whole["losses"]) == 2 * len(resumed["losses"])
        quarter = len(whole["losses"]) // 4
        assert sum(whole["losses"][-quarter:]) < 0.7 * sum(whole["losses"][:quarter])


def test_a_trainer_has_its_own_bits_without_compression(transformers: Found) -> None:
    for rank, each in enumerate(transformers):
        assert_same(each["plain"]["model"], each["sgd"]["model"], f"rank {rank}")
        assert each["plain"]["losses"] == each["sgd"]["losses"]
        assert each["plain"]["evaluated"] == each["sgd"]["evaluated"]
        assert each["sgd"]["replicas"] == REPLICAS


@pytest.mark.parametrize("kind", ["sharded", "full"])
def test_a_trainer_resumes_with_the_same_bits(kind: str, transformers: Found) -> None:
    assert_resumed(transformers, kind)
    for each in transformers:
        whole, resumed = each[kind]["whole"], each[kind]["resumed"]
        assert whole["losses"] == resumed["losses"]  # of the first half the trainer has kept them
        assert whole["evaluated"] == resumed["evaluated"]
        assert whole["bytes"] == resumed["bytes"] < each["sgd"]["bytes"] / 4
        assert whole["losses"][-1] < whole["losses"][0]


def test_what_cannot_be_is_refused_on_every_process_with_what_to_do(
    accelerate: Found, lightning: Found, transformers: Found
) -> None:
    for each in (*accelerate, *lightning, *transformers):
        assert "leave out every=" in each["local steps"]
        assert "the model lies on all 4 processes" in each["no replicas"]
        assert "ParallelismConfig(dp_replicate_size=..., dp_shard_size=...)" in each["no replicas"]
        assert "num_replicas=..." in each["no replicas"]
        assert "thinwire.compress_shards" in each["no replicas"]
    for each in (*accelerate, *lightning):
        assert 'fully_shard(layer, mesh=mesh["shard"])' in each["both dimensions"]
    for each in accelerate:
        assert "FullyShardedDataParallelPlugin(fsdp_version=2)" in each["no plugin"]
    for each in lightning:
        assert 'mesh=self.device_mesh["data_parallel"]' in each["not sharded"]
        assert "num_replicas=3" in each["sizes"]
        assert "4 processes" in each["sizes"]


def test_islands_are_found_by_where_the_model_lies(tmp_path: Path) -> None:
    launch(SIZE, functools.partial(placement_mains.main, str(tmp_path)))
    found = loaded(tmp_path)
    assert [each["rows"] for each in found] == ["[0, 2]", "[1, 3]", "[0, 2]", "[1, 3]"]
    assert [each["columns"] for each in found] == ["[0, 1]", "[0, 1]", "[2, 3]", "[2, 3]"]
    for each in found:
        assert "lies on all 4 processes" in each["everywhere"]
        assert "lies on all 4 processes" in each["within and over all"]
        assert "no islands of one size" in each["of two sizes"]
        assert "none has all of its processes" in each["on several"]
