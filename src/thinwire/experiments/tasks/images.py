"""Image classification: what ``digits``, ``fashion-mnist``, ``cifar10`` and ``image-folder`` have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinwire.arrays import CPU
from thinwire.experiments.tasks.base import Evaluation, Metric, Split
from thinwire.experiments.tasks.models import held_out, seeded, watched

_CLASSES_FOR_FIVE = 10
"""With fewer, one of five is no news."""
_EVALUATION_BATCH = 200  # small enough that the activations stay in the cache: faster than 1000


class ImageSource(Protocol):
    """One part of a data set, in memory or not."""

    @property
    def classes(self) -> Tensor:
        """int64 ``[n]``."""
        ...

    def take(self, indices: Tensor) -> Tensor:
        """The images at ``indices`` (int64 ``[b]``): f32 ``[b, channels, height, width]``, normalised."""
        ...


S = TypeVar("S", bound=ImageSource)


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

    def take(self, indices: Tensor) -> Tensor:
        """See :meth:`ImageSource.take`."""
        return self.pixels.index_select(0, indices)


@dataclass(frozen=True, slots=True)
class ByteImages:
    """One part of a data set whose images take a quarter of the memory, and are normalised when they are taken.

    Args:
        pixels: uint8 ``[n, channels, height, width]``.
        classes: int64 ``[n]``.
        mean: f32 ``[channels]``, of values from 0 to 1.
        std: f32 ``[channels]``, their standard deviation.
    """

    pixels: Tensor
    classes: Tensor
    mean: Tensor
    std: Tensor

    def at(self, indices: Tensor) -> "ByteImages":
        """The images at ``indices`` (int64 ``[m]``), copied."""
        chosen = self.pixels.index_select(0, indices), self.classes.index_select(0, indices)
        return ByteImages(*chosen, self.mean, self.std)

    def take(self, indices: Tensor) -> Tensor:
        """See :meth:`ImageSource.take`."""
        return normalised(self.pixels.index_select(0, indices), self.mean, self.std)


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 ``[b, channels, height, width]`` as f32: a 255th of each, less the mean, over the standard deviation."""
    return pixels.to(torch.float32).div_(255).sub_(mean[:, None, None]).div_(std[:, None, None])


def shifted_and_mirrored(pixels: Tensor, most: int = 4) -> Tensor:
    """Each image moved by up to ``most`` pixels both ways, with zeros behind it, and every other one mirrored.

    The draws come from torch's global generator, of which a run is as reproducible as its caller's use.

    Args:
        pixels: f32 ``[b, channels, height, width]``.
        most: 0 or more.
    """
    count, _, height, width = pixels.shape
    down, right = torch.randint(0, 2 * most + 1, (2, count, 1), dtype=torch.int64, device=CPU)
    mirrored = torch.randint(0, 2, (count, 1), dtype=torch.int64, device=CPU) == 1
    rows = down + torch.arange(height, dtype=torch.int64, device=CPU)
    columns = torch.arange(width, dtype=torch.int64, device=CPU).expand(count, width)
    columns = right + torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(pixels, (most, most, most, most))
    each = torch.arange(count, dtype=torch.int64, device=CPU)[:, None, None]
    # Indices on both sides of a slice put the slice last: [b, height, width, channels]. Left so, torch 2.13 would take
    # other kernels than for images that are not moved, and those of few channels end the process on some processors.
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageTask(Generic[S]):
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
        augment: whether training images are moved and mirrored, see :func:`shifted_and_mirrored`.
    """

    name: str
    train: S
    validation: S
    test: S
    build: Callable[[], nn.Module]
    batch_size: int
    learning_rates: tuple[float, ...]
    augment: bool = False

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
        pixels = self.train.take(indices)
        scores = model(shifted_and_mirrored(pixels) if self.augment else pixels)
        return F.cross_entropy(scores, self.train.classes.index_select(0, indices))

    def evaluate(self, model: nn.Module, split: Split) -> Evaluation:
        """Mean cross entropy and accuracy over all images of ``split``."""
        images = held_out(split, validation=self.validation, test=self.test)
        return watched(model, partial(_evaluate, model, images))


def _evaluate(model: nn.Module, images: ImageSource) -> Evaluation:
    total, correct, among_five = 0.0, 0, 0
    has_five = False
    for indices in torch.arange(len(images.classes), dtype=torch.int64, device=CPU).split(_EVALUATION_BATCH):
        scores, classes = model(images.take(indices)), images.classes.index_select(0, indices)
        total += float(F.cross_entropy(scores, classes, reduction="sum"))
        correct += int(torch.count_nonzero(scores.argmax(1) == classes))
        has_five = scores.shape[1] >= _CLASSES_FOR_FIVE
        if has_five:
            among_five += int(torch.count_nonzero(scores.topk(5).indices == classes.unsqueeze(1)))
    count = len(images.classes)
    return Evaluation(loss=total / count, value=correct / count, top5=among_five / count if has_five else None)
