"""What can be computed but cannot be meant is refused before anything is trained."""

from collections.abc import Iterable

from thinwire.errors import ConfigError
from thinwire.experiments.spec import Comparison
from thinwire.experiments.tasks import Metric, Task
from thinwire.methods import parse_method
from thinwire.worker import needs_server


def check_plausible(comparison: Comparison, task: Task) -> None:
    """Refuse what no one means: see the other functions of this module.

    Raises:
        ConfigError: a batch larger than a worker's share, a target that the metric cannot reach, or the link or speed
            of a worker that there is not.
    """
    check_batch_size(
        task, comparison.num_shares, comparison.batch_size, "workers" if not comparison.clients else "clients"
    )
    if comparison.target is not None:
        check_target(task.metric, comparison.target)
    if comparison.engine == "simulate":
        has_server = any(needs_server(parse_method(method)) for method in comparison.methods)
        check_ranks("a link", (rank for rank, _ in comparison.network.links), comparison.num_shares, has_server)
        check_ranks("a speed", (rank for rank, _ in comparison.compute.slow), comparison.num_shares, False)


def check_batch_size(task: Task, workers: int, batch_size: int, whose: str = "workers") -> None:
    """Refuse a batch of more examples than a worker has, or whoever they are dealt out to.

    Raises:
        ConfigError: it is.

    Example:
        >>> from thinwire.experiments.tasks import load_task
        >>> check_batch_size(load_task("digits"), workers=8, batch_size=200)
        Traceback (most recent call last):
        ...
        thinwire.errors.ConfigError: a batch size of 200 was given, and each of 8 workers has 162 of the 1,297 ...
    """
    share = task.num_train // workers
    if batch_size > share > 0:
        raise ConfigError(
            f"a batch size of {batch_size} was given, and each of {workers} {whose} has {share:,} of the "
            f"{task.num_train:,} training examples of {task.name}; give at most {share}, or fewer {whose}"
        )


def check_target(metric: Metric, target: float) -> None:
    """Refuse a target beyond the best value that there is.

    Raises:
        ConfigError: it is.

    Example:
        >>> check_target(Metric("accuracy", higher_is_better=True, best=1.0), 86)
        Traceback (most recent call last):
        ...
        thinwire.errors.ConfigError: a target of 86 was given, and accuracy is at most 1; did you mean 0.86?
    """
    if metric.best is None or target == metric.best or (target > metric.best) != metric.higher_is_better:
        return
    limit = f"{metric.name} is at {'most' if metric.higher_is_better else 'least'} {metric.best:g}"
    percent = metric.best == 1 and metric.higher_is_better and target <= 100
    hint = f"did you mean {target / 100:g}?" if percent else "no method can reach it"
    raise ConfigError(f"a target of {target:g} was given, and {limit}; {hint}")


def check_ranks(what: str, ranks: Iterable[int], workers: int, has_server: bool) -> None:
    """Refuse what is given for a worker that takes no part.

    Args:
        what: is given.
        ranks: the workers it is given for.
        workers: how many there are.
        has_server: whether the number after the last is a server's.

    Raises:
        ConfigError: one of them takes no part.
    """
    last = workers - 1 + has_server
    absent = [rank for rank in ranks if rank > last]
    if absent:
        server = f", and {last} is the server" if has_server else ""
        raise ConfigError(
            f"{what} was given for worker {absent[0]}, and the {workers} workers count from 0 to {workers - 1}{server}"
        )
