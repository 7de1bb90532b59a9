"""Weights on an accelerator are published and followed with the bits of the CPU's; a group of blocks waits once."""

import pytest
import torch
from place import DEVICE, IS_CUDA, host, working
from pretended_streams import ORDER
from torch import Tensor

import thinwire
from thinwire.weights import MemoryStore, layout


def made(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each.to(DEVICE) for name, each in weights.items()}


@pytest.mark.parametrize("block", [50, layout.BLOCK])
def test_weights_of_a_device(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    start = {
        "a": torch.randn(13, 17, generator=generator).bfloat16(),
        "t": torch.randn(5, 7, generator=generator).T,
        "n": torch.tensor([True, False]),
    }
    with working():
        trained, served = made(start), made({name: torch.zeros_like(each) for name, each in start.items()})
        store = MemoryStore()
        publisher = thinwire.sync_weights(trained, to=store)
        follower = thinwire.sync_weights(served, of=store)
        for step in range(3):
            publisher.publish()
            told = follower.follow()
            for name, each in trained.items():
                assert torch.equal(host(each), host(served[name]))
            assert set(told.changed) == ({"a"} if step else {"a", "t", "n"})
            trained["a"][2, 3:5] += 1
        follower.check()


@pytest.mark.skipif(IS_CUDA, reason="what a real device is waited for is not noted")
def test_a_publisher_waits_once_for_each_group() -> None:
    with working():
        trained = made({str(i): torch.full((40,), float(i), dtype=torch.bfloat16) for i in range(20)})
        publisher = thinwire.sync_weights(trained, to=MemoryStore())
        publisher.publish()
        trained["3"] += 1
        ORDER.clear()
        assert publisher.publish().num_changed == 40
        assert len(ORDER.waits) == 1
