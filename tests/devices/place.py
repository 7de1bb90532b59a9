"""The device that these suites use: CUDA where there is one, else one that pretends.

Where it pretends, what was waited for and what overtook what is known (``pretended_streams.ORDER``). On CUDA both stay
empty, and the bits have to do.

What cannot be tested here: Lightning and Transformers place a model by accelerators of their own, of which none is the
pretended device (what they attach is what Accelerate attaches, which leaves placement to others if told so). FSDP2 on
CUDA needs NCCL, which takes a GPU for each process: sharded models are tested on the pretended device alone.
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
