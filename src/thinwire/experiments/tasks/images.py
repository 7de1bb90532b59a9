"""Image classification from arrays in memory: what ``digits`` and ``fashion-mnist`` have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinwire.experiments.tasks.base import Evaluation, Metric, Split
from thinwire.experiments.tasks.models import held_out, seeded, watched

_CLASSES_FOR_FIVE = 10
"""With fewer, one of five is no news."""
_EVALUATION_BATCH = 200  # small enough that the activations stay in the cache: faster than 1000


@dataclass(frozen=True, slots=True)
class Images:
    """One part of a data set.

    Args:
        pixels: f32 ``[n, channels, height, width]``, already normalised.
        classes: int64 ``[n]``.
    """

    pixels: Tensor
    classes: Tensor

    def at(self, indices: Tensor) -> "Images":
        """The images at ``indices`` (int64 ``[m]``), copied."""
        return Images(self.pixels.index_select(0, indices), self.classes.index_select(0, indices))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageTask:
    """A :class:`~thinwire.experiments.tasks.base.Task`: name the class of each image.

    The loss is the mean cross entropy in nats, the metric the accuracy in ``[0, 1]``.

    Args:
        name: the name in tables and records.
        train: the training images; ``labels`` are their classes.
        validation: on which learning rates are chosen.
        test: on which results are measured.
        build: makes the model; a function of a module, so that tasks can be sent to other processes.
        batch_size: examples per worker and step.
        learning_rates: ascending.
    """

    name: str
    train: Images
    validation: Images
    test: Images
    build: Callable[[], nn.Module]
    batch_size: int
    learning_rates: tuple[float, ...]

    @property
    def metric(self) -> Metric:
        """Accuracy."""
        return Metric("accuracy", higher_is_better=True, best=1.0)

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return len(self.train.classes)

    @property
    def labels(self) -> Tensor:
        """The class of each training image."""
        return self.train.classes

    def model(self, seed: int) -> nn.Module:
        """A fresh network; equal seeds give equal bits."""
        return seeded(seed, self.build)

    def loss(self, model: nn.Module, indices: Tensor) -> Tensor:
        """Mean cross entropy of the training images at ``indices``."""
        scores = model(self.train.pixels.index_select(0, indices))
        return F.cross_entropy(scores, self.train.classes.index_select(0, indices))

    def evaluate(self, model: nn.Module, split: Split) -> Evaluation:
        """Mean cross entropy and accuracy over all images of ``split``."""
        images = held_out(split, validation=self.validation, test=self.test)
        return watched(model, partial(_evaluate, model, images))


def _evaluate(model: nn.Module, images: Images) -> Evaluation:
    total, correct, among_five = 0.0, 0, 0
    has_five = False
    chunks = torch.split(images.pixels, _EVALUATION_BATCH), torch.split(images.classes, _EVALUATION_BATCH)
    for pixels, classes in zip(*chunks, strict=True):
        scores = model(pixels)
        total += float(F.cross_entropy(scores, classes, reduction="sum"))
        correct += int(torch.count_nonzero(scores.argmax(1) == classes))
        has_five = scores.shape[1] >= _CLASSES_FOR_FIVE
        if has_five:
            among_five += int(torch.count_nonzero(scores.topk(5).indices == classes.unsqueeze(1)))
    count = len(images.classes)
    return Evaluation(loss=total / count, value=correct / count, top5=among_five / count if has_five else None)
