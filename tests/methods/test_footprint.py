"""What is said of a method's memory is what its worker has."""

import pytest
import torch

from thinwire.layout import Layout
from thinwire.methods import CATALOG, parse_method
from thinwire.random import Key
from thinwire.worker.footprint import remembered_num_bytes
from thinwire.worker.fragments import make_channels
from thinwire.worker.tracker import make_tracker


@pytest.mark.parametrize("name", [row.name for row in CATALOG])
def test_the_bytes_are_those_of_the_states(name: str) -> None:
    method = parse_method(name)
    named = {"w": torch.zeros(60, 70, dtype=torch.float32), "b": torch.zeros(60, dtype=torch.float32)}
    size = 4
    for rank in range(size):
        channels = make_channels(method, named, rank, size, Key(0))
        tracker = make_tracker(method, Layout.of(named), rank, size, Key(0), torch.device("cpu"))
        channels += [] if tracker is None else [tracker.channel]
        states = [state for each in channels for state in (each.memory, each.update, each.exchange, each.rounding)]
        kept = sum(tensor.nbytes for state in states for tensor in state.values())
        # Of regions, each fragment has its own bounds.
        assert remembered_num_bytes(method, Layout.of(named), rank, size) == pytest.approx(kept, abs=64 * len(channels))
