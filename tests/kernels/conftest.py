"""What the suites of the kernels share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_number_of_threads_afterwards() -> Iterator[None]:
    """A test may set the number of threads as it likes."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
