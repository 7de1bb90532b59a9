"""The tasks that thinwire knows by name, and the way to a user's own."""

import difflib
import importlib
import os
import sys
import traceback
import warnings
from typing import Any

from thinwire.errors import ConfigError, ThinwireError
from thinwire.experiments.tasks.base import Evaluation, Metric, Split, Task
from thinwire.files import StrPath

__all__ = [
    "Evaluation",
    "Metric",
    "Split",
    "Task",
    "call_foreign",
    "describe_failure",
    "load_task",
    "reads_files",
    "task_names",
]

_NAMES = ("digits", "fashion-mnist", "stdlib-lm", "logreg", "logreg-convex")


def task_names() -> tuple[str, ...]:
    """The names that :func:`load_task` knows."""
    return _NAMES


def reads_files(name: str) -> bool:
    """Whether the task of that name has a use for a folder of data files."""
    return name == "fashion-mnist"


def describe_failure(error: BaseException) -> str:
    """What a user's code raised and where, in one line.

    Example:
        >>> describe_failure(ValueError("three is no batch size"))
        'ValueError: three is no batch size'
    """
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{what} ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else what


def load_task(name: str, *, data: StrPath | None = None) -> Task:
    """The task of that name, or the one that a function of the user returns.

    Args:
        name: one of :func:`task_names`, or ``package.module:function``, a function that is called with no
            arguments and returns a :class:`~thinwire.experiments.tasks.base.Task`. The module is looked for
            in ``sys.path`` and then in the current directory.
        data: the folder of the data files, for ``fashion-mnist``; any other task has no use for it, and then
            a UserWarning says so.

    Raises:
        ConfigError: an unknown name; a module that cannot be imported, lacks the function, or whose function
            raises or returns something else than a task; or the task's data or a package it needs are not there.

    Example:
        >>> load_task("digits").num_train
        1297
        >>> load_task("digit")
        Traceback (most recent call last):
        ...
        thinwire.errors.ConfigError: there is no task "digit"; did you mean "digits"? Known tasks: digits, ...
    """
    if data is not None and not reads_files(name):
        warnings.warn(f'--data {data} has no effect: the task "{name}" reads no files.', stacklevel=2)
    # A task's own imports wait until it is asked for.
    if name == "digits":
        from thinwire.experiments.tasks.digits import digits

        return digits()
    if name == "fashion-mnist":
        from thinwire.experiments.tasks.fashion_mnist import fashion_mnist

        return fashion_mnist(data)
    if name == "stdlib-lm":
        from thinwire.experiments.tasks.stdlib_lm import stdlib_lm

        return stdlib_lm()
    if name in ("logreg", "logreg-convex"):
        from thinwire.experiments.tasks.logreg import logreg

        return logreg(regularised=name == "logreg")
    if ":" in name:
        return _foreign(name)
    nearest = difflib.get_close_matches(name, _NAMES, n=1)
    hint = f'; did you mean "{nearest[0]}"?' if nearest else "."
    raise ConfigError(
        f'there is no task "{name}"{hint} Known tasks: {", ".join(_NAMES)}. A task of your own is written '
        "package.module:function."
    )


def call_foreign(name: str, what: str) -> object:
    """What a function of the user's returns, which is called without arguments.

    Args:
        name: ``package.module:function``. The module is looked for in ``sys.path``, then in the current directory.
        what: it is to be, for messages.

    Raises:
        ConfigError: the name is not of that form, the module cannot be imported or lacks the function, or the function
            raises.
    """
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), function_name]):
        raise ConfigError(f'the {what} "{name}" is not of the form package.module:function.')
    here = os.getcwd()
    sys.path.append(here)
    try:
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise ConfigError(
                f'the {what} "{name}": cannot import {module_name} from sys.path or from {here}: {error}.'
            ) from error
        except Exception as error:
            raise ConfigError(
                f'the {what} "{name}": importing {module_name} raised {describe_failure(error)}; correct the module.'
            ) from error
        function = vars(module).get(function_name)
        if not callable(function):
            found = f"is a {type(function).__name__}" if function_name in vars(module) else "is not there"
            raise ConfigError(
                f'the {what} "{name}" needs a function {function_name} in {module_name}, and that {found}.'
            )
        try:
            result: object = function()
        except ThinwireError:
            raise
        except Exception as error:
            raise ConfigError(
                f'the {what} "{name}": {function_name} raised {describe_failure(error)}; it must be a function that is '
                f"called without arguments and returns a {what}."
            ) from error
    finally:
        sys.path.remove(here)
    return result


def _foreign(name: str) -> Task:
    task: Any = call_foreign(name, "task")
    members = [member for member in vars(Task) if not member.startswith("_")]
    missing = [member for member in members if member not in dir(task)]
    if missing:
        raise ConfigError(
            f'the task "{name}" returned a {type(task).__name__} without {", ".join(missing)}; a task has '
            f"{', '.join(members)}."
        )
    checked: Task = task
    return checked
