"""The vectors that are timed: heavy-tailed noise, or recorded gradients."""

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.bench.shapes import tensor_sizes
from thinwire.errors import ConfigError
from thinwire.experiments.recording import Recording
from thinwire.layout import Segments

HEAVY, RECORDED = "heavy", "recorded:"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class BenchInput:
    """Vectors of one length that are used in turn.

    Args:
        name: ``heavy`` or ``recorded:FILE``.
        vectors: f32 ``[d]`` each, all different.
        tensors: the segments of a vector, one for each tensor.
        note: where they come from, for the reader.
    """

    name: str
    vectors: tuple[Tensor, ...]
    tensors: Segments
    note: str

    @property
    def numel(self) -> int:
        """Length of each vector."""
        return self.tensors.numel

    def vector(self, turn: int) -> Tensor:
        """The vector of a turn; read it, do not write to it."""
        return self.vectors[turn % len(self.vectors)]


def check_input(name: str) -> None:
    """Refuse what :func:`make_input` cannot make, before anything is measured.

    Raises:
        ConfigError: an unknown name, or a file that is no recording or holds no gradient.
    """
    if name == HEAVY:
        return
    if not name.startswith(RECORDED):
        raise ConfigError(f"unknown input {name!r}; give {HEAVY}, or {RECORDED}FILE with a file of: thinwire record")
    if not Recording.load(_path(name)).gradient.steps:
        raise ConfigError(f"{name} holds no gradients; record again, with more steps")


def make_input(name: str, numel: int, seed: int = 0) -> BenchInput:
    """The vectors of that name and about that length (see :func:`thinwire.bench.shapes.tensor_sizes`).

    Raises:
        ConfigError: as :func:`check_input`.
    """
    check_input(name)
    return heavy(numel, seed) if name == HEAVY else recorded(Recording.load(_path(name)), name, numel)


def num_vectors(numel: int) -> int:
    """How many vectors are kept: 8, 4 or, above 100 M entries, 3, so that all the memory stays below 8 GiB."""
    return 8 if numel < 4_000_000 else 4 if numel < 100_000_000 else 3


def heavy(numel: int, seed: int) -> BenchInput:
    """Student-t noise of 3 degrees of freedom, times a fixed scale for each tensor, drawn from ``10^U(-4.5, -2)``.

    Example:
        >>> made = heavy(1000, seed=0)
        >>> made.numel, len(made.vectors)
        (1000, 8)
    """
    segments = Segments.of_sizes(tensor_sizes(numel))
    generators = np.random.default_rng(seed).spawn(1 + num_vectors(segments.numel))
    scales = 10.0 ** generators[0].uniform(-4.5, -2.0, segments.count)
    with ThreadPoolExecutor() as pool:
        vectors = tuple(pool.map(functools.partial(_heavy_vector, segments, scales), generators[1:]))
    note = f"Student-t(3) noise, {segments.count} tensors with scales from 10^U(-4.5, -2), {len(vectors)} vectors"
    return BenchInput(HEAVY, vectors, segments, note)


def _heavy_vector(segments: Segments, scales: "np.ndarray[Any, Any]", generator: np.random.Generator) -> Tensor:
    vector = np.empty(segments.numel, np.float32)
    for start in range(0, vector.size, _CHUNK):
        part = vector[start : start + _CHUNK]
        # Normal over the root of chi-square / 3; chi-square of 3 degrees of freedom is 2 Gamma(3/2).
        normal = generator.standard_normal(part.size, dtype=np.float32)
        np.multiply(normal, np.sqrt(1.5 / generator.standard_gamma(1.5, part.size, dtype=np.float32)), out=part)
    for part, scale in zip(np.split(vector, segments.offsets()[1:-1].numpy()), scales.tolist(), strict=True):
        part *= scale
    return torch.from_numpy(vector)


def recorded(recording: Recording, name: str, numel: int) -> BenchInput:
    """Gradients of a recording, laid end to end until a vector is long enough; the last is shortened."""
    rows = recording.gradient.vectors
    numel = sum(tensor_sizes(numel))
    repeats = -(-numel // recording.layout.numel)
    wanted = min(num_vectors(numel), max(1, len(rows)))
    vectors = []
    for turn in range(wanted):
        vector = torch.empty(numel, dtype=torch.float32, device=CPU)
        for place, part in enumerate(torch.split(vector, recording.layout.numel)):
            part.copy_(rows[(turn * repeats + place) % len(rows)][: part.numel()])
        vectors.append(vector)
    note = (
        f"{len(rows)} gradients of {recording.task} ({recording.layout.numel:,} entries each), trained with "
        f"{recording.plan.method}; a vector is {repeats} of them, the last one shortened; {len(vectors)} vectors"
    )
    if repeats * len(vectors) > len(rows):
        note += "; gradients are used more than once"
    if not recording.complete:
        note += "; the recording was interrupted"
    return BenchInput(name, tuple(vectors), Segments.of_sizes(_cut(recording.layout.sizes, numel)), note)


def _path(name: str) -> Path:
    return Path(name.removeprefix(RECORDED))


def _cut(sizes: tuple[int, ...], numel: int) -> list[int]:
    """``sizes`` again and again, ``numel`` entries in all."""
    cut: list[int] = []
    left = numel
    while left:
        for size in sizes:
            cut.append(min(size, left))
            left -= cut[-1]
            if not left:
                break
    return cut
