"""Stochastic steps of a linear model on a vector that several threads change."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU, array_of
from thinwire.errors import ConfigError
from thinwire.kernels.shared_memory.rows import LOSSES, Rows, Rule
from thinwire.kernels.shared_memory.shared import Shared
from thinwire.kernels.shared_memory.steps_numba import scratch_arrays, take_steps_numba
from thinwire.kernels.shared_memory.variants import Variant, number_of
from thinwire.random import Key

_LOW = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What one thread has of its own.

    Args:
        examples: the 64-bit key that draws its examples: word ``t`` of the stream those of step ``t``.
        entries: the key that draws coordinates.
        memory: contiguous f32 ``[d]``, what ``mem-sgd`` has not sent.
    """

    examples: int
    entries: int
    memory: Tensor

    @classmethod
    def of(cls, key: Key, numel: int) -> "Part":
        """With an empty memory.

        Example:
            >>> Part.of(Key(0).fold("thread", 0), 2).memory.tolist()
            [0.0, 0.0]
        """
        return cls(
            examples=key.fold("examples").bits64(),
            entries=key.fold("entries").bits64(),
            memory=torch.zeros(numel, dtype=torch.float32, device=CPU),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which steps of a thread are taken.

    Args:
        first: number of the first.
        num: how many.
        num_threads: how many threads begin together.
    """

    first: int = 0
    num: int = 0
    num_threads: int = 1


def take_steps(
    shared: Shared, rows: Rows, rule: Rule, variant: Variant, part: Part, span: Span, counts: Tensor | None = None
) -> tuple[int, int]:
    """The steps that one thread takes, while others take theirs.

    A step draws an example with replacement, reads the vector at its coordinates (each entry whole; together they may
    be of different moments), computes the gradient from them, and adds what the rule makes of it, a coordinate after
    the other. Nothing else is locked than what the variant says. The call holds no GIL, begins when ``num_threads``
    threads have called it, and ends early if the vector's threads are told to.

    Products ``<w, x>`` are summed in f64 in the order of the entries; all else is f32. So what a thread does alone is
    the same bits with every variant.

    Args:
        shared: its vector is f32 ``[d]``.
        rows: of ``d`` entries.
        rule: with at most ``d`` coordinates.
        variant: how it is added.
        part: the thread's own; its memory is written to.
        span: which steps.
        counts: int64 ``[d]``; of each coordinate that is written 1 is added here too, in the same way. What is missing
            from it at the end was lost.

    Returns:
        How many steps were taken, and how many coordinates were written.

    Raises:
        ConfigError: parts that do not fit each other.

    Example:
        >>> shared = Shared.around(torch.zeros(2))
        >>> rows = Rows.dense(torch.tensor([[1.0, 2.0]]), torch.ones(1))
        >>> take_steps(shared, rows, Rule(), "racy", Part.of(Key(0), 2), Span(num=1)), shared.vector.tolist()
        ((1, 2), [0.5, 1.0])
    """
    counted = check_fit(shared, rows, rule, part, span, counts)
    arrays = (*shared.arrays(), number_of(variant), span.num_threads, *rows.arrays())
    keys = [np.uint32(half) for key in (part.examples, part.entries) for half in (key & _LOW, key >> 32)]
    taken, written = take_steps_numba(
        *arrays, rule.number(), LOSSES.index(rule.loss), rule.k, rule.rate(), array_of(part.memory), counted,
        scratch_arrays(rows.numel, longest_of(rows, rule)), *keys, span.first, span.num,
    )  # fmt: skip
    return int(taken), int(written)


def longest_of(rows: Rows, rule: Rule) -> int:
    """Coordinates of the longest update that can occur.

    Example:
        >>> longest_of(Rows.dense(torch.eye(2), torch.ones(2)), Rule(k=3))
        3
    """
    return max(1, rule.k, int(rows.offsets.diff().max()))


def check_fit(
    shared: Shared, rows: Rows, rule: Rule, part: Part, span: Span, counts: Tensor | None
) -> "np.ndarray[Any, Any]":
    """The counts as an array, an empty one if there are none.

    Raises:
        ConfigError: parts that do not fit each other.
    """
    vector = shared.vector
    if vector.dtype != torch.float32 or vector.numel() != rows.numel:
        raise ConfigError(f"rows of {rows.numel} entries change as many float32, not {vector.numel()} {vector.dtype}")
    if rule.k > rows.numel:
        raise ConfigError(f"{rule.k} coordinates of {rows.numel} were asked for; there are no more")
    memory = part.memory
    if memory.dtype != torch.float32 or memory.shape != vector.shape or not memory.is_contiguous():
        raise ConfigError(f"a memory is a contiguous float32 [{rows.numel}], not {memory.dtype} {tuple(memory.shape)}")
    if span.first < 0 or span.num < 0 or span.num_threads < 1:
        raise ConfigError(f"{span} is no range of steps: numbers are 0 or more, threads at least 1")
    if counts is None:
        return np.empty(0, np.int64)
    if counts.dtype != torch.int64 or counts.shape != vector.shape or not counts.is_contiguous():
        raise ConfigError(f"counts are a contiguous int64 [{rows.numel}], not {counts.dtype} {tuple(counts.shape)}")
    return array_of(counts)
