"""Small data sets in the forms in which large ones come, and tasks on them with narrow models."""

import gzip
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from thinwire.experiments.tasks.byte_pairs import tokenised
from thinwire.experiments.tasks.cifar10 import cifar10
from thinwire.experiments.tasks.gpt import GPT
from thinwire.experiments.tasks.image_folder import FolderImages, image_folder
from thinwire.experiments.tasks.images import ByteImages, ImageTask
from thinwire.experiments.tasks.language_model import LanguageModelTask, file_of_each, windows_of
from thinwire.experiments.tasks.resnet import Norm, ResNet18


def write_idx(path: Path, array: np.ndarray) -> None:
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fashion(folder: Path, num_train: int = 60, num_test: int = 30) -> Path:
    random = np.random.default_rng(0)
    for part, count in (("train", num_train), ("t10k", num_test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = random.integers(0, 40, (count, 28, 28), dtype=np.uint8) + 20 * labels[:, None, None]
        # One file of each pair is packed: both forms are read.
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    return folder


def write_cifar10(folder: Path, num_each: int = 20) -> Path:
    random = np.random.default_rng(1)
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        labels = (np.arange(num_each) % 10).astype(np.uint8)
        pixels = random.integers(0, 40, (num_each, 3072), dtype=np.uint8) + 20 * labels[:, None]
        (folder / name).write_bytes(np.concatenate([labels[:, None], pixels], axis=1).tobytes())
    return folder


def write_images(folder: Path, num_classes: int = 10, num_each: int = 5) -> Path:
    """As ImageNet is laid out; a class is a brightness, and no two images have one size."""
    random = np.random.default_rng(2)
    for part in ("train", "val"):
        for number in range(num_classes):
            (folder / part / f"class{number}").mkdir(parents=True)
            for copy in range(num_each):
                shape = (20 + copy, 24 + number, 3)
                pixels = random.integers(0, 40, shape, dtype=np.uint8) + np.uint8(20 * number)
                ending = "png" if copy else "JPEG"
                Image.fromarray(pixels).save(folder / part / f"class{number}" / f"image{copy}.{ending}")
    return folder


def write_texts(folder: Path, num_files: int = 60) -> Path:
    """Words whose order has a rule, in files of some kB."""
    words = ["alpha ", "beta ", "gamma\n", "déjà ", "    return ", "x = 1\n"]
    for number in range(num_files):
        random = np.random.default_rng(number)
        steps = random.integers(1, 3, 600).cumsum() % len(words)
        text = f"file {number}\n" + "".join(words[step] for step in steps)
        path = folder / f"part{number % 3}" / f"text{number:02}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def narrow_resnet(num_classes: int, norm: Norm) -> ResNet18:
    return ResNet18(channels=3, num_classes=num_classes, small=True, norm=norm, width=4)


def small_cifar10(folder: Path, *, augment: bool, norm: Norm = "group") -> ImageTask[ByteImages]:
    task = cifar10(write_cifar10(folder), norm=norm, augment=augment, validation=20)
    return replace(task, build=partial(narrow_resnet, 10, norm))


def small_image_folder(folder: Path, *, augment: bool) -> ImageTask[FolderImages]:
    task = image_folder(write_images(folder), size=16, augment=augment)
    return replace(task, build=partial(narrow_resnet, 10, "group"))


def small_gpt(folder: Path, vocabulary: int = 300, context: int = 16) -> LanguageModelTask:
    """What :func:`thinwire.experiments.tasks.gpt.gpt` makes of a text, on less of it than that takes."""
    texts = [path.read_bytes() for path in sorted(write_texts(folder, 12).rglob("*.txt"))]
    splits = {"train": texts[:8], "validation": texts[8:10], "test": texts[10:]}
    tokens = tokenised(splits, vocabulary, folder / "kept")
    windows = {name: windows_of(part, context) for name, part in tokens.splits.items()}
    return LanguageModelTask(
        name=f"gpt:vocabulary={vocabulary}",
        windows=windows["train"],
        labels=file_of_each(tokens.lengths["train"], len(windows["train"]), context),
        validation=windows["validation"],
        test=windows["test"],
        token_num_bytes=tokens.num_bytes,
        build=partial(GPT, vocabulary=vocabulary, context=context, width=32, num_layers=2, num_heads=2),
        batch_size=8,
        learning_rates=(0.03, 0.1, 0.3, 1.0),
    )
