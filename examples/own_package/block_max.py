"""A package with a task, a compressor and a method of its own. Install it, and thinwire's commands know them:

pip install ./examples/own_package
thinwire compare sgd block-max:length=64 --task tumours:hidden=16
"""

from dataclasses import dataclass
from functools import partial

import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from thinwire.compressors import Traits
from thinwire.config import register
from thinwire.exchanges import Gather
from thinwire.experiments.tasks.images import Images, ImageTask
from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback
from thinwire.methods import GradientAveraging, Method, entry
from thinwire.payloads import Dense, Sparse
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class LargestOfBlock:
    """The largest entry of each block of ``length``: a top-k without a search, with ``gamma = 1 / length``."""

    length: int = 64

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sparse:
        padded = nn.functional.pad(x, (0, -x.numel() % self.length)).view(-1, self.length)
        starts = self.length * torch.arange(len(padded), dtype=torch.int64, device=x.device)
        indices = padded.abs().argmax(1) + starts
        return Sparse(x.numel(), indices, Dense(x[indices]))

    def outline(self, segments: Segments) -> Sparse:
        count = -(-segments.numel // self.length)
        indices = torch.empty(count, dtype=torch.int64, device="meta")
        return Sparse(segments.numel, indices, Dense(torch.empty(count, dtype=torch.float32, device="meta")))

    def traits(self, numel: int) -> Traits:
        # The largest of n squares is at least a share 1/n of their sum.
        return Traits(unbiased=False, error=1.0 - 1.0 / self.length)


@entry(name="block-max", paper="none", summary="the largest entry of each block")
def ROW(length: int = 64) -> Method:
    """Parameters are options of the method string: ``block-max:length=32``."""
    return GradientAveraging(memory=ErrorFeedback(), compressor=LargestOfBlock(length=length), exchange=Gather())


def tumours(hidden: int = 32) -> ImageTask[Images]:
    """A perceptron tells benign from malignant tumours by 30 measurements.

    Parameters are options of the task: ``tumours:hidden=16``; one named ``data`` gets the folder of ``--data``.
    """
    measured, classes = load_breast_cancer(return_X_y=True)
    x = torch.from_numpy(measured).float()
    everything = Images((x - x.mean(0)) / x.std(0), torch.from_numpy(classes).long())
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return ImageTask(
        name=f"tumours:hidden={hidden}",
        train=everything.at(order[:369]),
        validation=everything.at(order[369:469]),
        test=everything.at(order[469:]),
        build=partial(network, hidden),
        batch_size=8,
        learning_rates=(0.01, 0.03, 0.1, 0.3),
    )


def network(hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(30, hidden), nn.ReLU(), nn.Linear(hidden, 2))
