"""What the suites of the kernels share."""

from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue

import pytest
import torch

from thinwire.kernels.jit import threads
from thinwire.kernels.select import parallel


@pytest.fixture(autouse=True)
def _same_number_of_threads_afterwards() -> Iterator[None]:
    """A test may set the number of threads as it likes."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def short_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads share also what one would do faster, so that a law of several needs no long vector."""
    monkeypatch.setattr(threads, "_LEAST_NS", 1 << 12)
    monkeypatch.setattr(parallel, "_SHARED", 1 << 16)


@pytest.fixture
def others_never_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread but the caller's makes a call."""
    monkeypatch.setattr(threads, "_take", lambda idle: SimpleQueue())
    monkeypatch.setattr(threads, "_idle", lambda process: deque())
