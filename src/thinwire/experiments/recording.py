"""Gradients of a training run, and what its method compressed, kept in one file."""

import dataclasses
import functools
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from thinwire.compressors import Compressor, Traits
from thinwire.errors import ConfigError, ThinwireError, WorkerError
from thinwire.experiments.compare import made_by
from thinwire.experiments.optimizers import make_optimizer
from thinwire.experiments.plausible import check_batch_size
from thinwire.experiments.session import one_torch_thread, private_torch_randomness
from thinwire.experiments.sharding import Batches, make_shards
from thinwire.experiments.spec import check_counts
from thinwire.experiments.tasks import Task, describe_failure
from thinwire.files import StrPath, write_beside
from thinwire.layout import Layout, Segments
from thinwire.methods import Method, parse_method
from thinwire.payloads import Payload
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.worker import Worker

Kind: TypeAlias = Literal["gradient", "compressed"]
_FORMAT = "thinwire recording 1"


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
        except (
            RuntimeError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            OverflowError,
            RecursionError,
            pickle.UnpicklingError,
        ) as error:
            # torch's own messages on foreign files are pages long.
            raise ConfigError(f"{path} is damaged or not a file of thinwire record of this version") from error

    def _kinds(self) -> dict[Kind, Rows]:
        return {"gradient": self.gradient, "compressed": self.compressed}


class Recorder:
    """Trains the task in a simulation and keeps vectors on the way.

    The run is the one that a comparison makes with the same settings, bit for bit.

    Args:
        plan: what to train and keep.
        task: the task.

    Raises:
        ConfigError: a method or an optimizer that does not fit the task's model.
    """

    def __init__(self, plan: RecordingPlan, task: Task) -> None:
        self.plan = plan
        self._task = task
        self._key = Key(plan.seed)
        shards = make_shards(task.labels, plan.workers, "random", self._key.fold("shards"))
        check_batch_size(task, plan.workers, plan.batch_size)
        self._batches = [
            Batches(shard, plan.batch_size, self._key.fold("batches", rank)) for rank, shard in enumerate(shards)
        ]
        self._taps: list[_Tap] = []
        self._workers = [self._worker(rank) for rank in range(plan.workers)]
        self.layout = self._workers[0].layout
        self._simulation = Simulation(plan.workers)
        self._ranks = range(plan.workers if plan.all_workers else 1)
        count = plan.steps // plan.every * len(self._ranks)
        self._gradients = _Shelf(count, self.layout.numel)
        self._compressed = _Shelf(count if self._taps else 0, self.layout.numel)
        self._complete = False

    @property
    def num_bytes(self) -> int:
        """What the finished recording takes, in memory and on disk."""
        return 4 * (self._gradients.vectors.numel() + self._compressed.vectors.numel())

    def run(self, watch: Callable[[int], None]) -> None:
        """Train to the end; ``watch`` gets the number of steps made. May be interrupted, see :meth:`recording`.

        Raises:
            NumericsError: the numbers overflowed.
            WorkerError: the task raised.
        """
        with private_torch_randomness(), one_torch_thread():
            for step in range(1, self.plan.steps + 1):
                self._step(step)
                watch(step)
        self._complete = True

    def recording(self) -> Recording:
        """What is recorded so far."""
        return Recording(
            task=self._task.name, plan=self.plan, layout=self.layout, complete=self._complete, made_by=made_by(),
            gradient=self._gradients.rows(), compressed=self._compressed.rows(),
        )  # fmt: skip

    def _step(self, step: int) -> None:
        kept = step % self.plan.every == 0
        for rank, worker in enumerate(self._workers):
            # The same address as in a comparison, which counts steps from 0.
            torch.default_generator.manual_seed(self._key.fold("model", step - 1, rank).bits64() >> 1)
            worker.optimizer.zero_grad()
            try:
                self._task.loss(worker.model, self._batches[rank].indices(step - 1)).backward()
            except ThinwireError:
                raise
            except Exception as error:
                raise WorkerError(
                    f"the task {self._task.name} raised {describe_failure(error)} at step {step}"
                ) from error
            if kept and rank in self._ranks:
                self._gradient(worker.model, self._gradients.free_row())
                self._gradients.label(step, rank)
        for rank in self._ranks if self._taps else ():
            self._taps[rank].is_open |= kept
        self._simulation.run([worker.step() for worker in self._workers])
        for rank in self._ranks if self._taps else ():
            heard = self._taps[rank].take()
            if heard is not None:
                self._compressed.free_row().copy_(heard)
                self._compressed.label(step, rank)

    def _gradient(self, model: torch.nn.Module, out: Tensor) -> None:
        params = [model.get_parameter(name) for name in self.layout.names]
        self.layout.flatten([torch.zeros_like(p) if p.grad is None else p.grad for p in params], out)

    def _worker(self, rank: int) -> Worker:
        model = self._task.model(self.plan.seed)
        optimizer = make_optimizer(self.plan.optimizer, model.parameters(), self.plan.lr)
        method: Method = parse_method(self.plan.method)
        if method.memory.init(torch.zeros(1)):
            tap = _Tap(method.compressor)
            self._taps.append(tap)
            method = dataclasses.replace(method, compressor=tap)
        return Worker(method, model, optimizer, rank=rank, size=self.plan.workers, seed=self.plan.seed)


@dataclass(slots=True)
class _Tap:
    """A compressor that keeps what it is given, once, when it is open."""

    compressor: Compressor
    is_open: bool = False
    heard: Tensor | None = None

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        if self.is_open:
            self.heard, self.is_open = x.clone(), False
        return self.compressor.compress(x, key, segments)

    def outline(self, segments: Segments) -> Payload:
        return self.compressor.outline(segments)

    def traits(self, numel: int) -> Traits:
        return self.compressor.traits(numel)

    def take(self) -> Tensor | None:
        heard, self.heard = self.heard, None
        return heard


class _Shelf:
    """Rows that are filled one after the other; memory is used as they are."""

    def __init__(self, count: int, numel: int) -> None:
        self.vectors = torch.empty(count, numel, dtype=torch.float32)
        self._labels: list[tuple[int, int]] = []

    def free_row(self) -> Tensor:
        """Where the next vector goes; it counts once it is labelled."""
        return self.vectors[len(self._labels)]

    def label(self, step: int, rank: int) -> None:
        self._labels.append((step, rank))

    def rows(self) -> Rows:
        count = len(self._labels)
        # A slice would be saved with all the memory behind it.
        vectors = self.vectors if count == len(self.vectors) else self.vectors[:count].clone()
        return Rows(
            vectors=vectors, steps=tuple(s for s, _ in self._labels), ranks=tuple(rank for _, rank in self._labels)
        )
