"""``image-folder``: ResNet-18 on a folder of images, one folder a class, as ImageNet is laid out."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.experiments.sharding import permutation
from thinwire.experiments.tasks.images import ImageTask, normalised
from thinwire.experiments.tasks.resnet import Norm, ResNet18
from thinwire.files import StrPath
from thinwire.plugins import import_package
from thinwire.random import Key

if TYPE_CHECKING:
    from PIL.Image import Image

_ENDINGS = (".jpg", ".jpeg", ".png")
_SMALL = 64
"""Up to so many pixels an image is small."""
_VALIDATION_SHARE, _MOST_VALIDATION = 0.05, 5_000
_AREAS, _RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of what is cut out of a training image, and of its width to its height (Szegedy et al. 2014)."""
_CUT = 7 / 8
"""Of a test image's shorter side."""
# Of ImageNet's training images, divided by 255.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SPLIT = Key(0).fold("image-folder", "split")


@dataclass(frozen=True, slots=True, eq=False)
class FolderImages:
    """Images that are read and decoded each time they are taken.

    Args:
        paths: of the images.
        classes: int64 ``[n]``.
        size: height and width of what is taken of each.
        random: whether that is a part drawn at random, every other one mirrored, by torch's global generator (of which
            a run is as reproducible as its caller's use), or the centre.
    """

    paths: tuple[Path, ...]
    classes: Tensor
    size: int
    random: bool

    def take(self, indices: Tensor) -> Tensor:
        """f32 ``[b, 3, size, size]``, normalised.

        Raises:
            ConfigError: a file is no image.
        """
        pixels = torch.stack([self._decoded(self.paths[index]) for index in indices.tolist()])
        return normalised(
            pixels,
            torch.tensor(_MEAN, dtype=torch.float32, device=CPU),
            torch.tensor(_STD, dtype=torch.float32, device=CPU),
        )

    def _decoded(self, path: Path) -> Tensor:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
            raise ConfigError(f"{path} is not a sound image: {error}. Replace or remove it") from error
        box = _random_box(image) if self.random else _central_box(image)
        part = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
        pixels = torch.from_numpy(np.array(part)).permute(2, 0, 1)
        is_mirrored = self.random and float(torch.rand((), dtype=torch.float64, device=CPU)) < 0.5
        return pixels.flip(2) if is_mirrored else pixels


def image_folder(
    data: StrPath | None = None, *, size: int = 224, norm: Norm = "group", augment: bool = True
) -> ImageTask[FolderImages]:
    """The images of a folder, and ResNet-18: for small images up to a size of 64, else for large ones.

    Files are listed when the task is made, and decoded when they are used. A fixed key takes 5 % of the training
    images, 5,000 at most, for validation, whatever the seed of a run; ``val`` is the test.

    Args:
        data: folder with ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg`` (``.jpeg`` and ``.png`` too).
        size: height and width of what the model sees.
        norm: see :class:`~thinwire.experiments.tasks.resnet.ResNet18`.
        augment: whether training sees a part of each image drawn at random, every other one mirrored, or the centre.

    Raises:
        ConfigError: no folder was given or it is not laid out so, Pillow is not installed, or a size below 8.
    """
    import_package("PIL", 'the task "image-folder"', "thinwire[images]")
    if size < 8:
        raise ConfigError(f"image-folder: size={size} was given; it is at least 8")
    if data is None:
        raise ConfigError(f"image-folder has no data of its own; give --data DIR, {_EXPECTED}")
    root = Path(data)
    names = _folders(root / "train")
    strange = sorted(set(_folders(root / "val")) - set(names))
    if len(names) < 2 or strange:
        found = f"{root / 'val'} has {strange[0]}, which train lacks" if strange else f"there are {len(names)} in train"
        raise ConfigError(
            f"image-folder needs two classes or more, in train and val alike, and {found}; it reads {_EXPECTED}"
        )
    known, test = _listed(root / "train", names), _listed(root / "val", names)
    order = permutation(len(known), _SPLIT).tolist()
    num_validation = max(1, min(_MOST_VALIDATION, int(_VALIDATION_SHARE * len(known))))
    return ImageTask(
        name=f"image-folder:size={size},norm={norm},augment={'yes' if augment else 'no'}",
        train=_images([known[index] for index in order[num_validation:]], size, augment),
        validation=_images([known[index] for index in order[:num_validation]], size, False),
        test=_images(test, size, False),
        build=partial(ResNet18, channels=3, num_classes=len(names), small=size <= _SMALL, norm=norm),
        batch_size=32,
        learning_rates=(0.01, 0.03, 0.1, 0.3),
    )


_EXPECTED = "a folder with train/CLASS/*.jpg and val/CLASS/*.jpg (or .jpeg, .png), one folder a class"


def _folders(root: Path) -> list[str]:
    if not root.is_dir():
        raise ConfigError(f"image-folder did not find the folder {root}; give --data DIR, {_EXPECTED}")
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def _listed(root: Path, names: list[str]) -> list[tuple[Path, int]]:
    found = []
    for number, name in enumerate(names):
        folder = root / name
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        found += [(path, number) for path in files if path.suffix.lower() in _ENDINGS]
    if len(found) < 2:
        raise ConfigError(f"image-folder found {len(found)} images in {root}; it reads {_EXPECTED}")
    return found


def _images(listed: list[tuple[Path, int]], size: int, random: bool) -> FolderImages:
    classes = torch.tensor([number for _, number in listed], dtype=torch.int64, device=CPU)
    return FolderImages(tuple(path for path, _ in listed), classes, size, random)


def _random_box(image: "Image") -> tuple[float, float, float, float]:
    area, ratio, right, down = torch.rand(4, dtype=torch.float64, device=CPU).tolist()
    share = _AREAS[0] + (_AREAS[1] - _AREAS[0]) * area
    log_ratio = math.log(_RATIOS[0]) + math.log(_RATIOS[1] / _RATIOS[0]) * ratio
    # What is drawn wider or higher than the image is cut to it.
    side = math.sqrt(share * image.width * image.height)
    width = min(image.width, side * math.exp(log_ratio / 2))
    height = min(image.height, side * math.exp(-log_ratio / 2))
    left, top = right * (image.width - width), down * (image.height - height)
    return left, top, left + width, top + height


def _central_box(image: "Image") -> tuple[float, float, float, float]:
    side = _CUT * min(image.width, image.height)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return left, top, left + side, top + side
