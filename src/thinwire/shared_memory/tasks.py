"""Examples for linear models: synthetic ones of a given density, and data that is at hand."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.config import suggest
from thinwire.errors import ConfigError
from thinwire.experiments.tasks.logreg import logreg
from thinwire.kernels.shared_memory.rows import Rows
from thinwire.plugins import import_package
from thinwire.random import Key

DENSITY = 0.1
_NUMEL, _EXAMPLES = 2000, 2000
_MOST_ENTRIES = 2**28


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """A task's data.

    Args:
        task: its name.
        rows: not regularised yet.
    """

    task: str
    rows: Rows

    @property
    def density(self) -> float:
        """Entries that are not zero, as a share of all."""
        return self.rows.indices.numel() / (self.rows.num * self.rows.numel)


def load_examples(
    task: str, *, numel: int | None = None, examples: int | None = None, density: float | None = None, seed: int = 0
) -> Examples:
    """The examples of a task.

    - ``sparse``: in each example ``density * numel`` coordinates drawn at random have normal values, scaled to norm
      1; a noisy linear model gives the labels.
    - ``gspar``: dense, with entries of uneven size (Wangni et al. 2018, with ``C1 = 0.6``, ``C2 = 0.25``).
    - ``logreg``: dense, as the task of ``thinwire compare``.
    - ``breast-cancer``, ``digits`` (even or odd): scikit-learn's; ``numel``, ``examples`` and ``seed`` have no part.

    Args:
        task: one of these.
        numel: coordinates; 2000 if none, for ``gspar`` 256.
        examples: how many; 2000 if none.
        density: of ``sparse``; a tenth if none.
        seed: of ``sparse`` and ``gspar``.

    Raises:
        ConfigError: an unknown task, a number out of range, too much for memory, or scikit-learn is not installed.

    Example:
        >>> load_examples("sparse", numel=100, examples=10, density=0.05).rows.indices.numel()
        50
    """
    d, n, share = check_asked(task, numel=numel, examples=examples, density=density)
    for name, given, fits in (
        ("numel", numel, task in _SYNTHETIC), ("examples", examples, task in _SYNTHETIC),
        ("density", density, task == "sparse"),
    ):  # fmt: skip
        if given is not None and not fits:
            warnings.warn(f"{name} has no effect on the task {task}, which has its own", stacklevel=2)
    rows = _SYNTHETIC[task](d, n, share, seed) if task in _SYNTHETIC else _INSTALLED[task]()
    return Examples(task=task, rows=rows)


def check_asked(task: str, *, numel: int | None, examples: int | None, density: float | None) -> tuple[int, int, float]:
    """Coordinates, number and density of the examples that were asked for, of those that are made.

    Raises:
        ConfigError: see :func:`load_examples`.

    Example:
        >>> check_asked("sparse", numel=None, examples=10, density=None)
        (2000, 10, 0.1)
    """
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r} of shared memory{suggest(task, list(TASKS))}")
    for name, given in (("numel", numel), ("examples", examples), ("density", density)):
        if given is not None and not given > 0:
            raise ConfigError(f"{name} = {given} was given; it must be above 0")
    if density is not None and density > 1:
        raise ConfigError(f"a density of {density} was given; it is a share, at most 100%")
    d, n = numel or (256 if task == "gspar" else _NUMEL), examples or _EXAMPLES
    share = (density or DENSITY) if task == "sparse" else 1.0
    if task in _SYNTHETIC and d * n * share > _MOST_ENTRIES:
        raise ConfigError(
            f"{n} examples of {d} coordinates with density {share:g} have {d * n * share:,.0f} entries; at most "
            f"{_MOST_ENTRIES:,} are made. Give fewer examples, or a lower density"
        )
    return d, n, share


def _random(seed: int, *names: str | int) -> "np.random.Generator":
    return np.random.Generator(np.random.Philox(key=Key(seed).fold("shared memory", *names).bits64()))


def _sparse(numel: int, num: int, density: float, seed: int) -> Rows:
    random = _random(seed, "sparse", numel, num)
    count = max(1, round(density * numel))
    if count == numel:
        indices = np.tile(np.arange(numel), num)
    else:
        indices = np.concatenate([np.sort(random.permutation(numel)[:count]) for _ in range(num)])
    values = random.standard_normal((num, count), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    weights = random.standard_normal(numel, dtype=np.float32)
    margins = (values * weights[indices.reshape(num, count)]).sum(axis=1)
    margins *= 2 / max(math.sqrt(float(np.mean(margins.astype(np.float64) ** 2))), 1e-30)
    positive = random.random(num) < 1 / (1 + np.exp(-margins.astype(np.float64)))
    return Rows(
        numel=numel,
        offsets=torch.arange(num + 1, dtype=torch.int64, device=CPU) * count,
        indices=torch.from_numpy(indices.astype(np.int64)),
        values=torch.from_numpy(values.reshape(-1)),
        labels=torch.from_numpy(np.where(positive, np.float32(1), np.float32(-1))),
        penalties=torch.zeros(numel, dtype=torch.float32, device=CPU),
    )


def _gspar(numel: int, num: int, density: float, seed: int) -> Rows:
    random = _random(seed, "gspar", numel, num)
    sizes = random.random(numel, dtype=np.float32)
    sizes[sizes <= 0.25] *= 0.6
    x = random.standard_normal((num, numel), dtype=np.float32)
    labels = np.where(x * sizes @ random.standard_normal(numel, dtype=np.float32) >= 0, np.float32(1), np.float32(-1))
    return _scaled(torch.from_numpy(x * sizes), torch.from_numpy(labels))


def _logreg(numel: int, num: int, density: float, seed: int) -> Rows:
    task = logreg(num, numel)
    labels = task.labels.to(torch.float32)
    return Rows.dense(task.signed_rows * labels.unsqueeze(1), labels)


def _breast_cancer() -> Rows:
    x, target = _of_scikit_learn("load_breast_cancer", "breast-cancer")
    x = (x - x.mean(dim=0)) / x.std(dim=0)
    return _scaled(x, 2 * target - 1)


def _digits() -> Rows:
    x, target = _of_scikit_learn("load_digits", "digits")
    return _scaled(x, 1 - 2 * (target % 2))


def _scaled(x: Tensor, labels: Tensor) -> Rows:
    """Rows of norm 1."""
    return Rows.dense((x / x.norm(dim=1, keepdim=True).clamp(min=1e-30)).float(), labels.float())


def _of_scikit_learn(name: str, task: str) -> tuple[Tensor, Tensor]:
    data: Any = getattr(import_package("sklearn.datasets", f'the task "{task}"', "thinwire[bench]"), name)()
    return torch.from_numpy(data.data).double(), torch.from_numpy(data.target).double()


_SYNTHETIC: dict[str, Callable[[int, int, float, int], Rows]] = {"sparse": _sparse, "gspar": _gspar, "logreg": _logreg}
_INSTALLED: dict[str, Callable[[], Rows]] = {"breast-cancer": _breast_cancer, "digits": _digits}
TASKS = (*_SYNTHETIC, *_INSTALLED)
