"""``digits``: a small convolutional network on the handwritten digits that come with scikit-learn."""

from functools import cache

import torch
from torch import nn

from thinwire.experiments.sharding import permutation
from thinwire.experiments.tasks.images import Images, ImageTask
from thinwire.plugins import import_package
from thinwire.random import Key

_NUM_TRAIN, _NUM_VALIDATION = 1297, 200
_SPLIT = Key(0).fold("digits", "split")


@cache
def digits() -> ImageTask[Images]:
    """The 1,797 grey 8x8 digits of scikit-learn, and a network of 38,282 parameters.

    Pixels are divided by 16, so they lie in ``[0, 1]``. 1,297 images are for training, 200 for validation and
    300 for the test; a fixed key draws the split, whatever the seed of a run. There is nothing to download.

    The learning rates surround what suits plain SGD for 300 steps with batches of 128 (8 workers x 16).

    Raises:
        ConfigError: scikit-learn is not installed.

    Example:
        >>> task = digits()
        >>> task.num_train, task.labels[:3].dtype
        (1297, torch.int64)
    """
    data = import_package("sklearn.datasets", 'the task "digits"', "thinwire[bench]").load_digits()
    pixels = torch.from_numpy(data.images).to(torch.float32).div_(16).unsqueeze(1)
    everything = Images(pixels, torch.from_numpy(data.target).to(torch.int64))
    order = permutation(len(everything.classes), _SPLIT)
    end = _NUM_TRAIN + _NUM_VALIDATION
    return ImageTask(
        name="digits",
        train=everything.at(order[:_NUM_TRAIN]),
        validation=everything.at(order[_NUM_TRAIN:end]),
        test=everything.at(order[end:]),
        build=network,
        batch_size=16,
        learning_rates=(0.03, 0.1, 0.3, 1.0),
    )


def network() -> nn.Module:
    """Two convolutions, one pooling, two linear layers: ``[b, 1, 8, 8]`` to ``[b, 10]``."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
