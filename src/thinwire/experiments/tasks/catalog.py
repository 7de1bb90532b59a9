"""The tasks that thinwire knows by name, and those of installed packages: what each is, and what may be chosen."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from thinwire.errors import ConfigError, ThinwireError
from thinwire.experiments.tasks.base import Task
from thinwire.experiments.tasks.checking import checked, describe_failure
from thinwire.experiments.tasks.cifar10 import cifar10
from thinwire.experiments.tasks.digits import digits
from thinwire.experiments.tasks.fashion_mnist import fashion_mnist
from thinwire.experiments.tasks.gpt import gpt
from thinwire.experiments.tasks.image_folder import image_folder
from thinwire.experiments.tasks.logreg import logreg
from thinwire.experiments.tasks.resnet import Norm
from thinwire.experiments.tasks.stdlib_lm import stdlib_lm
from thinwire.files import StrPath
from thinwire.methods.options import Option, options_of, read_options
from thinwire.plugins import installed


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task.

    Args:
        name: what the user types, and options may follow.
        summary: what is learned, in a few words.
        data: from where its data come.
        build: makes it of keyword options, and of ``data`` (a folder, or None) if that is one of its parameters.
        gpu: what of it is worth its time on a GPU only; empty for nothing.
        package: the installed package that brings it; empty for thinwire.
    """

    name: str
    summary: str
    data: str
    build: Callable[..., Task]
    gpu: str = ""
    package: str = ""

    @property
    def reads_files(self) -> bool:
        """Whether it has a use for a folder of data files."""
        return "data" in inspect.signature(self.build).parameters

    @property
    def options(self) -> dict[str, Option]:
        """What may follow the name."""
        return {name: option for name, option in options_of(self.build).items() if name != "data"}

    def make(self, text: str, data: StrPath | None) -> Task:
        """The task with the options of ``name=value,...``.

        Raises:
            ConfigError: an unknown option or a value that cannot be read, or what the task itself refuses.
        """
        options: dict[str, Any] = read_options(text, self.name, self.options)
        if self.reads_files:
            options["data"] = data
        if not self.package:
            return self.build(**options)
        where = f'the task "{self.name}" of the installed package {self.package}'
        try:
            return checked(self.build(**options), where)
        except ThinwireError:
            raise
        except Exception as error:
            raise ConfigError(f"{where} raised {describe_failure(error)}") from error

    def to_json(self) -> dict[str, Any]:
        """All that it says, in plain values."""
        return {
            "name": self.name,
            "summary": self.summary,
            "data": self.data,
            "gpu": self.gpu or None,
            "package": self.package or "thinwire",
            "options": [option.to_json() for option in self.options.values()],
        }


# Of functions with parameters that are no options; the others say their own.


def _fashion_mnist(
    data: StrPath | None = None, model: Literal["cnn", "resnet18"] = "cnn", norm: Norm = "group"
) -> Task:
    return fashion_mnist(data, model=model, norm=norm)


def _stdlib_lm() -> Task:
    return stdlib_lm()


def _logreg() -> Task:
    return logreg()


def _logreg_convex() -> Task:
    return logreg(regularised=False)


def _cifar10(data: StrPath | None = None, norm: Norm = "group", augment: bool = True) -> Task:
    return cifar10(data, norm=norm, augment=augment)


_RESNET = "a training of ResNet-18"
TASKS: tuple[TaskRow, ...] = (
    TaskRow(name="digits", summary="a small network on images of digits", data="scikit-learn's", build=digits),
    TaskRow(
        name="fashion-mnist",
        summary="a small network, or ResNet-18, on images of clothes",
        data="IDX files: Debian's dataset-fashion-mnist, or --data",
        build=_fashion_mnist,
        gpu=_RESNET,
    ),
    TaskRow(
        name="stdlib-lm",
        summary="a byte-level transformer",
        data="the source of Python's standard library",
        build=_stdlib_lm,
    ),
    TaskRow(
        name="logreg",
        summary="regularised logistic regression with known optimum: strongly convex",
        data="made",
        build=_logreg,
    ),
    TaskRow(
        name="logreg-convex", summary="the same without the regulariser: convex", data="made", build=_logreg_convex
    ),
    TaskRow(
        name="gpt",
        summary="a transformer of GPT-2's shapes with a byte-pair vocabulary; GPT-2 of 124 million parameters is "
        "gpt:layers=12,width=768,context=1024,vocabulary=50257",
        data="the source of Python's standard library, or text files: --data",
        build=gpt,
        gpu="a training of more than some ten million parameters",
    ),
    TaskRow(
        name="cifar10",
        summary="ResNet-18 on the coloured 32x32 images of CIFAR-10",
        data="its binary files: --data",
        build=_cifar10,
        gpu=_RESNET,
    ),
    TaskRow(
        name="image-folder",
        summary="ResNet-18 on a folder of images as ImageNet is laid out",
        data="train/CLASS/*.jpg and val/CLASS/*.jpg: --data",
        build=image_folder,
        gpu=_RESNET,
    ),
)


def task_names() -> tuple[str, ...]:
    """The names that thinwire knows by itself."""
    return tuple(row.name for row in TASKS)


def all_names() -> list[str]:
    """Those, and the names that installed packages bring."""
    return list(dict.fromkeys([*task_names(), *installed("thinwire.tasks")]))


def find_task(text: str) -> TaskRow | None:
    """The row of a task that options may follow; None if no task has that name.

    A package cannot take a name that thinwire knows.

    Raises:
        ConfigError: an installed package brings it and cannot be imported, or brings no function that makes a task.

    Example:
        >>> row = find_task("gpt:layers=2")
        >>> row.name, row.reads_files, row.options["layers"].default
        ('gpt', True, 4)
    """
    name = text.partition(":")[0].strip()
    for row in TASKS:
        if row.name == name:
            return row
    plugin = installed("thinwire.tasks").get(name)
    if plugin is None:
        return None
    build = plugin.load()
    where = f'the task "{name}" of the installed package {plugin.package}'
    if not callable(build):
        raise ConfigError(f"{where} must be a function that returns a task; {plugin.entry.value} is no function")
    row = TaskRow(
        name=name,
        summary=((build.__doc__ or "").strip().split("\n")[0] or "a task of its own"),
        data=f"those of {plugin.package}",
        build=build,
        package=plugin.package,
    )
    try:
        needed = [each for each, option in row.options.items() if option.default is inspect.Parameter.empty]
    except (KeyError, NameError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: each parameter needs an annotation that can be read: {error}") from error
    if needed:
        raise ConfigError(f"{where} has parameters without a default ({', '.join(needed)}); options have one")
    return row
