"""``cifar10``: ResNet-18 on CIFAR-10, read from the binary files in which it is distributed."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.experiments.sharding import permutation
from thinwire.experiments.tasks.images import ByteImages, ImageTask
from thinwire.experiments.tasks.resnet import Norm, ResNet18
from thinwire.files import StrPath
from thinwire.random import Key

_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = "test_batch.bin"
_UNPACKED = "cifar-10-batches-bin"
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32
"""A byte for the class, then the image, channel after channel, row after row."""
# Of the 50,000 training images, divided by 255.
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_SPLIT = Key(0).fold("cifar10", "split")


def cifar10(
    data: StrPath | None = None, *, norm: Norm = "group", augment: bool = True, validation: int = 5_000
) -> ImageTask[ByteImages]:
    """The coloured 32x32 images of CIFAR-10, and ResNet-18 for small images, of 11,173,962 parameters.

    A fixed key takes the validation images from those of training, whatever the seed of a run.

    Args:
        data: folder with ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, or the folder in which
            ``cifar-10-binary.tar.gz`` was unpacked.
        norm: see :class:`~thinwire.experiments.tasks.resnet.ResNet18`.
        augment: whether training images are moved by up to 4 pixels and mirrored.
        validation: how many of the training images are for validation.

    Raises:
        ConfigError: no folder was given, files are missing or broken, or ``validation`` leaves nothing on one side.
    """
    folder = _folder(data)
    known = _read([folder / name for name in _TRAIN])
    count = len(known.classes)
    if not 1 <= validation < count:
        raise ConfigError(f"cifar10: validation={validation} was given; with {count} images it is 1 to {count - 1}")
    order = permutation(count, _SPLIT)
    return ImageTask(
        name=f"cifar10:norm={norm},augment={'yes' if augment else 'no'}",
        train=known.at(order[validation:]),
        validation=known.at(order[:validation]),
        test=_read([folder / _TEST]),
        build=partial(ResNet18, channels=3, num_classes=10, small=True, norm=norm),
        batch_size=32,
        learning_rates=(0.01, 0.03, 0.1, 0.3),
        augment=augment,
    )


def _folder(data: StrPath | None) -> Path:
    expected = f"a folder with {', '.join((*_TRAIN, _TEST))}, as in cifar-10-binary.tar.gz"
    if data is None:
        raise ConfigError(f"cifar10 has no data of its own; give --data DIR, {expected}")
    folder = Path(data)
    folder = folder / _UNPACKED if (folder / _UNPACKED).is_dir() else folder
    missing = [name for name in (*_TRAIN, _TEST) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"cifar10 looked in {folder} and did not find {', '.join(missing)}; give --data DIR, {expected}"
        )
    return folder


def _read(paths: list[Path]) -> ByteImages:
    parts = []
    for path in paths:
        try:
            content = np.fromfile(path, dtype=np.uint8)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        if content.size == 0 or content.size % _RECORD:
            raise ConfigError(
                f"{path} has {content.size:,} bytes, which is no whole number of images of {_RECORD:,} bytes; fetch "
                "the file again"
            )
        rows = content.reshape(-1, _RECORD)
        if rows[:, 0].max() > 9:
            raise ConfigError(f"{path} holds the label {rows[:, 0].max()}; labels are 0 to 9. Fetch the file again")
        parts.append(rows)
    return ByteImages(
        torch.from_numpy(np.concatenate([rows[:, 1:] for rows in parts]).reshape(-1, *_SHAPE)),
        torch.from_numpy(np.concatenate([rows[:, 0] for rows in parts]).astype(np.int64)),
        torch.tensor(_MEAN, dtype=torch.float32, device=CPU),
        torch.tensor(_STD, dtype=torch.float32, device=CPU),
    )
