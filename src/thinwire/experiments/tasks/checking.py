"""What is said of a user's task that does not do what a task does."""

import traceback

from thinwire.errors import ConfigError
from thinwire.experiments.tasks.base import Task


def describe_failure(error: BaseException) -> str:
    """What a user's code raised and where, in one line.

    Example:
        >>> describe_failure(ValueError("three is no batch size"))
        'ValueError: three is no batch size'
    """
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{what} ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else what


def checked(task: object, where: str) -> Task:
    """The task itself.

    Args:
        task: what a user's function returned.
        where: whose it is, for the message.

    Raises:
        ConfigError: it lacks something that a task has.
    """
    members = [member for member in vars(Task) if not member.startswith("_")]
    missing = [member for member in members if member not in dir(task)]
    if missing:
        raise ConfigError(
            f"{where} returned a {type(task).__name__} without {', '.join(missing)}; a task has {', '.join(members)}."
        )
    found: Task = task  # type: ignore[assignment]
    return found
