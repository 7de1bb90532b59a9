"""The sharded example: the same bits as hybrid sharding, and true bytes."""

import functools
from pathlib import Path
from typing import Any

import fsdp_example_mains as mains
import pytest
import torch

from thinwire.experiments.launch import launch


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fsdp-example")
    launch(4, functools.partial(mains.train_all, str(folder)))
    return [torch.load(Path(folder, f"rank-{rank}.pt"), weights_only=True) for rank in range(4)]


def test_without_compression_a_transformer_has_the_bits_of_hybrid_sharding(found: list[dict[str, Any]]) -> None:
    for each in found:
        ours, own = each["sgd"]["model"], each["plain"]["model"]
        assert all(torch.equal(ours[name], own[name]) for name in own)


def test_what_is_counted_is_what_the_links_carry(found: list[dict[str, Any]]) -> None:
    for each in found:
        for name in ("sgd", "signtopk:density=10%"):
            for counted, carried in zip(each[name]["traffic"], each[name]["link"], strict=True):
                assert counted > 0
                assert abs(counted - carried) <= 0.01 * carried
