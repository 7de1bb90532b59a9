"""``fashion-mnist``: a convolutional network on 70,000 photographs of clothes, read from IDX files."""

from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from thinwire.errors import ConfigError
from thinwire.experiments.sharding import permutation
from thinwire.experiments.tasks.idx import read_idx
from thinwire.experiments.tasks.images import Images, ImageTask
from thinwire.experiments.tasks.resnet import Norm, ResNet18
from thinwire.files import StrPath
from thinwire.random import Key

DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"

# Mean and standard deviation over the pixels of the 60,000 training images, divided by 255.
_MEAN, _STD = 0.2860, 0.3530
_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
_NAMES = tuple(f"{part}-{kind}" for part in ("train", "t10k") for kind in _KINDS)
_SPLIT = Key(0).fold("fashion-mnist", "split")


def fashion_mnist(
    data: StrPath | None = None,
    *,
    num_validation: int = 5_000,
    model: Literal["cnn", "resnet18"] = "cnn",
    norm: Norm = "group",
) -> ImageTask[Images]:
    """The grey 28x28 images of Fashion-MNIST, and a network of 206,922 parameters.

    The 60,000 images of the training files are split by a fixed key, whatever the seed of a run, into 55,000
    for training and 5,000 for validation; the 10,000 of the ``t10k`` files are the test. Pixels are
    normalised to mean 0 and standard deviation 1. They are held as f32, 220 MB in all.

    Args:
        data: folder with the four IDX files ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
            ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each with or without ``.gz``. None:
            where Debian's package ``dataset-fashion-mnist`` puts them, ``/usr/share/datasets/fashion-mnist``.
        num_validation: how many images of the training files are for validation; at least one of them must
            be left for training.
        model: ``cnn``, the network, or ``resnet18``, ResNet-18 for small images, of 11,172,810 parameters.
        norm: of ``resnet18``, see :class:`~thinwire.experiments.tasks.resnet.ResNet18`.

    Raises:
        ConfigError: files are missing or broken, are not 28x28 images with one of ten labels each, or
            ``num_validation`` leaves nothing on one side.
    """
    folder = Path(DEBIAN_FOLDER if data is None else data)
    paths = [_find(folder, f"{part}-{kind}") for part in ("train", "t10k") for kind in _KINDS]
    missing = [name for name, path in zip(_NAMES, paths, strict=True) if path is None]
    if missing:
        raise ConfigError(
            f"fashion-mnist looked in {folder} for IDX files, with or without .gz, and did not find "
            f"{', '.join(missing)}. Either `apt-get install dataset-fashion-mnist`, which fills "
            f"{DEBIAN_FOLDER}, or give `--data DIR`, a folder with the four IDX files {', '.join(_NAMES)}."
        )
    train_images, train_labels, test_images, test_labels = (path for path in paths if path is not None)
    known = _read(train_images, train_labels)
    count = len(known.classes)
    if not 1 <= num_validation < count:
        raise ConfigError(f"num_validation is {num_validation}; with {count} images it is 1 to {count - 1}.")
    order = permutation(count, _SPLIT)
    return ImageTask(
        name="fashion-mnist" if model == "cnn" else f"fashion-mnist:model={model},norm={norm}",
        train=known.at(order[num_validation:]),
        validation=known.at(order[:num_validation]),
        test=_read(test_images, test_labels),
        build=network if model == "cnn" else partial(ResNet18, channels=1, num_classes=10, small=True, norm=norm),
        batch_size=32,
        learning_rates=(0.03, 0.1, 0.3, 1.0),
    )


def network() -> nn.Module:
    """Two convolutions, each with a pooling, and two linear layers: ``[b, 1, 28, 28]`` to ``[b, 10]``."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        ChannelsLast(),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


class ChannelsLast(nn.Module):
    """The same values, with the channels of a pixel side by side in memory.

    Pooling and the second convolution are faster so on a CPU: a training step takes about a third less time.
    Only activations are laid out so; parameters, and the gradients that ``backward`` leaves in ``.grad``,
    stay contiguous.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[b, c, h, w]``, f32."""
        return x.contiguous(memory_format=torch.channels_last)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(images_path: Path, labels_path: Path) -> Images:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or len(images) == 0:
        raise ConfigError(f"{images_path} holds an array of shape {images.shape}, not images [n, 28, 28].")
    if labels.shape != images.shape[:1]:
        raise ConfigError(
            f"{labels_path} holds an array of shape {labels.shape}; the {len(images)} images of "
            f"{images_path} need one label each."
        )
    if labels.max() > 9:
        raise ConfigError(f"{labels_path} holds the label {labels.max()}; labels are 0 to 9.")
    pixels = torch.from_numpy(images).to(torch.float32).div_(255).sub_(_MEAN).div_(_STD)
    return Images(pixels.unsqueeze(1), torch.from_numpy(labels).to(torch.int64))
