"""Gradients of a training run, and what its method compressed, kept in one file."""

import dataclasses
import functools
import pickle
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.experiments.spec import check_counts
from thinwire.files import StrPath, write_beside
from thinwire.layout import Layout

Kind: TypeAlias = Literal["gradient", "compressed"]
_FORMAT = "thinwire recording 1"
_DAMAGED = (
    RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError, OverflowError, pickle.UnpicklingError
)  # fmt: skip
"""What torch and reading raise of a file that is none of these; a RecursionError is a RuntimeError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingPlan:
    """What is trained and which steps are kept.

    Args:
        method: a method string, see :func:`thinwire.methods.parse_method`.
        workers: simulated workers.
        steps: training steps.
        every: the vectors of steps ``every``, ``2 every``, ... are kept; steps count from 1.
        lr: learning rate.
        batch_size: examples per worker and step.
        optimizer: see :func:`thinwire.experiments.optimizers.make_optimizer`.
        seed: of model, batches and exchanges.
        all_workers: keep the vectors of every worker instead of worker 0's.

    Raises:
        ConfigError: a value out of range.
    """

    method: str
    workers: int
    steps: int
    every: int
    lr: float
    batch_size: int
    optimizer: str = "sgd"
    seed: int = 0
    all_workers: bool = False

    def __post_init__(self) -> None:
        check_counts({name: getattr(self, name) for name in ("workers", "steps", "every", "batch_size")})
        if self.every > self.steps:
            raise ConfigError(f"every = {self.every} of {self.steps} steps keeps nothing; give at most {self.steps}")
        if not 0.0 < self.lr < float("inf"):
            raise ConfigError(f"a learning rate of {self.lr} was given; it must be above 0 and finite")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Vectors of one kind, f32 ``[n, d]``: row ``i`` is of step ``steps[i]`` and worker ``ranks[i]``."""

    vectors: Tensor
    steps: tuple[int, ...]
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """What a file of ``thinwire record`` holds.

    Args:
        task: the task's name.
        plan: how it was trained.
        layout: names and shapes of the tensors that make up a vector.
        complete: whether training came to its end; an interrupted one keeps what it had.
        made_by: versions of thinwire, torch and Python.
        gradient: gradients of single batches, before anything is done to them.
        compressed: what went into the compressor, the residual included; no row for a method without memory. A
            method that communicates every few steps gives the vector of its first exchange from a kept step on.
    """

    task: str
    plan: RecordingPlan
    layout: Layout
    complete: bool
    made_by: dict[str, str]
    gradient: Rows
    compressed: Rows

    def save(self, path: StrPath) -> None:
        """Write the file, beside and renamed; ``torch.load(path, weights_only=True)`` reads it, a plain dict.

        Raises:
            ConfigError: the file cannot be written.
        """
        content = {
            "format": _FORMAT,
            "task": self.task,
            "complete": self.complete,
            # torch gives its version as a class of its own, which weights_only refuses.
            "made_by": {name: str(version) for name, version in self.made_by.items()},
            "plan": dataclasses.asdict(self.plan),
            "names": list(self.layout.names),
            "shapes": [list(shape) for shape in self.layout.shapes],
            "vectors": {kind: rows.vectors for kind, rows in self._kinds().items()},
            "steps": {kind: list(rows.steps) for kind, rows in self._kinds().items()},
            "ranks": {kind: list(rows.ranks) for kind, rows in self._kinds().items()},
        }
        write_beside(path, functools.partial(torch.save, content))

    @staticmethod
    def load(path: StrPath) -> "Recording":
        """The recording that :meth:`save` wrote; its vectors are mapped from the file, not read.

        Raises:
            ConfigError: no such file, or one that is no recording.
        """
        try:
            content = torch.load(path, weights_only=True, mmap=True)
            if content["format"] != _FORMAT:
                raise ValueError(f"it says that it is a {content['format']!r}")
            rows = {
                kind: Rows(vectors=vectors, steps=tuple(content["steps"][kind]), ranks=tuple(content["ranks"][kind]))
                for kind, vectors in content["vectors"].items()
            }
            layout = Layout(tuple(content["names"]), tuple(torch.Size(shape) for shape in content["shapes"]))
            for kind, kept in rows.items():
                if kept.vectors.dtype != torch.float32 or kept.vectors.shape != (len(kept.steps), layout.numel):
                    raise ValueError(f"its {kind} vectors are {kept.vectors.dtype} {list(kept.vectors.shape)}")
            return Recording(
                task=content["task"], plan=RecordingPlan(**content["plan"]), layout=layout,
                complete=content["complete"], made_by=content["made_by"], gradient=rows["gradient"],
                compressed=rows["compressed"],
            )  # fmt: skip
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read ({error.strerror or error}); give a file of: thinwire record"
            ) from error
        except _DAMAGED as error:
            # torch's own messages on foreign files are pages long.
            raise ConfigError(f"{path} is damaged or not a file of thinwire record of this version") from error

    def _kinds(self) -> dict[Kind, Rows]:
        return {"gradient": self.gradient, "compressed": self.compressed}
