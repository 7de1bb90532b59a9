"""The device that these suites use: CUDA where there is one, else one that pretends.

Where it pretends, what was waited for and what overtook what is known (``pretended_streams.ORDER``). On CUDA both stay
empty, and the bits have to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

IS_CUDA = torch.cuda.is_available()

if IS_CUDA:
    DEVICE = torch.device("cuda", 0)
else:
    from pretended import DEVICE as DEVICE


def host(tensor: Tensor) -> Tensor:
    """What a tensor of either device holds, for a test to look at."""
    if IS_CUDA:
        return tensor.detach().cpu()
    import pretended

    return pretended.host(tensor)


@contextmanager
def working() -> Iterator[None]:
    """The device can be used."""
    if IS_CUDA:
        yield
        return
    import pretended

    with pretended.pretending():
        yield
