"""The tasks that thinwire knows by name, and the way to a user's own."""

import difflib
import importlib
import os
import sys
import warnings

from thinwire.errors import ConfigError, ThinwireError
from thinwire.experiments.tasks.base import Evaluation, Metric, Split, Task
from thinwire.experiments.tasks.catalog import TASKS, TaskRow, all_names, find_task, task_names
from thinwire.experiments.tasks.checking import checked, describe_failure
from thinwire.files import StrPath

__all__ = [
    "TASKS",
    "Evaluation",
    "Metric",
    "Split",
    "Task",
    "TaskRow",
    "all_names",
    "call_foreign",
    "describe_failure",
    "find_task",
    "load_task",
    "reads_files",
    "task_names",
]


def reads_files(name: str) -> bool:
    """Whether the task of that name, which options may follow, has a use for a folder of data files.

    Raises:
        ConfigError: see :func:`find_task`.
    """
    row = find_task(name)
    return row is not None and row.reads_files


def load_task(name: str, *, data: StrPath | None = None) -> Task:
    """The task of that name, or the one that a function of the user returns.

    Args:
        name: one of :func:`task_names` or of an installed package, which options may follow, as in
            ``gpt:layers=2,width=64``; or ``package.module:function``, a function that is called with no
            arguments and returns a :class:`~thinwire.experiments.tasks.base.Task`. The module is looked for
            in ``sys.path`` and then in the current directory.
        data: the folder of the data files, for tasks that read some; any other task has no use for it, and then
            a UserWarning says so.

    Raises:
        ConfigError: an unknown name or option; a module that cannot be imported, lacks the function, or whose function
            raises or returns something else than a task; or the task's data or a package it needs are not there.

    Example:
        >>> load_task("digits").num_train
        1297
        >>> load_task("digit")
        Traceback (most recent call last):
        ...
        thinwire.errors.ConfigError: there is no task "digit"; did you mean "digits"? Known tasks: digits, ...
    """
    row = find_task(name)
    if data is not None and (row is None or not row.reads_files):
        warnings.warn(f'--data {data} has no effect: the task "{name}" reads no files.', stacklevel=2)
    if row is not None:
        return row.make(name.partition(":")[2], data)
    if ":" in name:
        return _foreign(name)
    known = all_names()
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f'; did you mean "{nearest[0]}"?' if nearest else "."
    raise ConfigError(
        f'there is no task "{name}"{hint} Known tasks: {", ".join(known)}. A task of your own is written '
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
    return checked(call_foreign(name, "task"), f'the task "{name}"')
