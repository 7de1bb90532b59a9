"""How words changed, coded by what is known of them before: few bytes where the small ones change and the large do not.

The words are floats, or plain bytes, whose bits are before and after known to the writer, and before to the reader. A
word's *class* is its exponent before. An optimizer's step moves numbers of all sizes about equally far, so the class
says how likely the last place of a word is to change, and by how much. In the order of classes, and of places within
each, the code has

- how many words of the class changed,
- for each of them how many of its class lie between it and the one before,
- whether its step is negative, and the step's magnitude less one.

A step is the distance between two bit patterns in the order of the numbers that they stand for, modulo ``2**bits``. All
numbers are coded as in :mod:`thinwire.kernels.entropy.adaptive_gaps`, with estimates of their own for counts, gaps and
steps, which go on from class to class. Classes without words are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from thinwire.arrays import array_of, empty_array, tensor_of
from thinwire.errors import ConfigError, WireError
from thinwire.kernels.entropy.arithmetic import NOT_SHORTEST
from thinwire.kernels.entropy.gap_streams import REASONS
from thinwire.kernels.entropy.word_steps_numba import (
    OTHER_COUNT,
    count_words,
    decode_words,
    encode_words,
)
from thinwire.kernels.jit.threads import run

MAX_NUMEL = 2**30
"""Most words of one code."""

_REASONS = {
    **REASONS,
    NOT_SHORTEST: "the last bytes of the steps are not those that an encoder writes",
    OTHER_COUNT: "as many words as are declared do not change",
}


@dataclass(frozen=True, slots=True)
class Words:
    """What the bits of a word mean.

    Args:
        bits: of a word: 8, 16 or 32.
        shift: bits below the exponent.
        exponent_bits: of the exponent, at most 8; 0 where words are plain numbers without a sign.

    Example:
        >>> Words(16, 7, 8).unsigned
        dtype('uint16')
    """

    bits: int
    shift: int
    exponent_bits: int

    @property
    def unsigned(self) -> "np.dtype[Any]":
        """The format of the words as numbers."""
        return np.dtype(f"uint{self.bits}")

    @property
    def _numbers(self) -> tuple[int, int, int]:
        return self.shift, (1 << self.exponent_bits) - 1, self.bits if self.exponent_bits else -self.bits


def count_changed(befores: Sequence[Tensor], afters: Sequence[Tensor], words: Words) -> list[int]:
    """How many words of each pair of vectors differ; pairs are looked at by several threads.

    Args:
        befores, afters: vectors of integers of ``words.bits``, on the CPU.
        words: their format.

    Raises:
        ConfigError: vectors of another format, or of different lengths.

    Example:
        >>> import torch
        >>> bits = torch.tensor([1, 2], dtype=torch.uint8)
        >>> count_changed([bits], [bits + 1], Words(8, 0, 0))
        [2]
    """
    calls = [_arrays(before, after, words) for before, after in zip(befores, afters, strict=True)]
    return [int(count) for count in run(count_words, calls)] if calls else []


def encode_steps(
    befores: Sequence[Tensor], afters: Sequence[Tensor], words: Words, counts: Sequence[int], limits: Sequence[int]
) -> list[Tensor | None]:
    """The code of each pair of vectors, which several threads write; None where it takes more bytes than the limit.

    Args:
        befores, afters, words: as in :func:`count_changed`.
        counts: what that said.
        limits: the most bytes of each code.

    Returns:
        uint8 vectors.

    Raises:
        ConfigError: as :func:`count_changed`.

    Example:
        >>> import torch
        >>> before = torch.tensor([0.1, 0.2, 30.0]).bfloat16()
        >>> after = torch.tensor([0.1, 0.201, 30.0]).bfloat16()
        >>> codes = encode_steps([before.view(torch.int16)], [after.view(torch.int16)], Words(16, 7, 8), [1], [100])
        >>> codes[0].tolist()
        [34, 246]
    """
    calls = []
    for before, after, count, limit in zip(befores, afters, counts, limits, strict=True):
        events = empty_array(count, np.int32), empty_array(count, np.int32)
        calls.append((*_arrays(before, after, words), *words._numbers, *events, np.empty(limit, np.uint8)))
    sizes = run(encode_words, calls) if calls else []
    return [tensor_of(call[-1][:size]) if size >= 0 else None for call, size in zip(calls, sizes, strict=True)]


def decode_steps(
    vectors: Sequence[Tensor], codes: Sequence[Tensor], words: Words, counts: Sequence[int]
) -> list[Tensor]:
    """Make the words before those after, in place, by several threads; a vector whose code is refused stays as it was.

    Args:
        vectors: contiguous vectors of integers of ``words.bits``, on the CPU.
        codes: what :func:`encode_steps` gave for them.
        words: their format.
        counts: how many words of each change.

    Returns:
        Where the words of each vector are that changed: int32, ascending.

    Raises:
        ConfigError: as :func:`count_changed`.
        WireError: codes that :func:`encode_steps` does not write, or of other vectors; others may be decoded.

    Example:
        >>> import torch
        >>> vector = torch.tensor([0.1, 0.2, 30.0]).bfloat16()
        >>> code = torch.tensor([34, 246], dtype=torch.uint8)
        >>> decode_steps([vector.view(torch.int16)], [code], Words(16, 7, 8), [1]), vector[1].item()
        ([tensor([1], dtype=torch.int32)], 0.201171875)
    """
    calls = []
    for vector, code, count in zip(vectors, codes, counts, strict=True):
        if not 0 <= count <= vector.numel():
            raise WireError(f"{count} of {vector.numel()} words are declared to change")
        array, _ = _arrays(vector, vector, words)
        events = empty_array(count, np.int32), empty_array(count, np.int32)
        calls.append((array, array_of(code), *words._numbers, *events, empty_array(count, np.int32)))
    for result in run(decode_words, calls) if calls else []:
        if result < 0:
            raise WireError(_REASONS[int(result)])
    return [tensor_of(call[-1]) for call in calls]


def _arrays(before: Tensor, after: Tensor, words: Words) -> tuple[Any, Any]:
    for each in (before, after):
        right = each.is_cpu and each.dim() == 1 and each.is_contiguous() and not each.dtype.is_floating_point
        if not right or 8 * each.dtype.itemsize != words.bits or not each.numel() == before.numel() <= MAX_NUMEL:
            raise ConfigError(
                f"words are two vectors of {words.bits}-bit integers of one length, at most 2**30, on the CPU; got "
                f"{before.dtype} of shape {tuple(before.shape)} and {after.dtype} of shape {tuple(after.shape)}"
            )
    return before.detach().numpy().view(words.unsigned), after.detach().numpy().view(words.unsigned)
