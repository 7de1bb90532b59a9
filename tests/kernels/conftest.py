"""What the suites of the kernels share."""

from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue

import pytest
import torch

from thinwire.kernels.jit import threads


@pytest.fixture(autouse=True)
def _same_number_of_threads_afterwards() -> Iterator[None]:
    """A test may set the number of threads as it likes."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def others_never_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread but the caller's makes a call."""
    monkeypatch.setattr(threads, "_take", lambda idle: SimpleQueue())
    monkeypatch.setattr(threads, "_idle", lambda process: deque())
