"""Inputs, cuts and statistics that the suites of the compressors share."""

from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.compressors import Compressor
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.payloads import Payload
from thinwire.random import Key
from thinwire.wire import encode

LENGTHS = (1, 2, 7, 64, 1000)
KEY, OTHER_KEY = Key(7), Key(11)
TINY = 2.0**-149  # the least f32 above 0


def inputs(numel: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(numel)
    noise, more = torch.randn(2, numel, generator=generator)
    index = torch.arange(numel)
    alternate = 1.0 - 2.0 * (index % 2)
    signed_zeros = torch.zeros(numel)
    signed_zeros[::2] = -0.0
    return {
        "gaussian": noise,
        "heavy tails": noise.sign() * (2.0 * more).exp(),
        "spike": torch.where(index == numel // 2, 3.0, 0.0),
        "constant": torch.full((numel,), -2.5),
        "geometric": alternate * torch.exp2(-index.float()),
        "sparse": torch.where(more.abs() > 1.5, noise, torch.zeros(())),
        "zeros": torch.zeros(numel),
        "signed zeros": signed_zeros,
        "denormal": noise * 1e-41,
        "huge": noise * 1e30,
    }


def cuts(numel: int) -> list[Segments]:
    return [
        Segments.whole(numel),
        Segments.uniform(numel, 7),
        Segments.of_sizes([numel // 3, 0, numel - numel // 3]),
    ]


def situations(lengths: tuple[int, ...] = LENGTHS) -> Iterator[tuple[Tensor, Segments]]:
    for numel in lengths:
        for number, x in enumerate(inputs(numel).values()):
            # Every cut at lengths that it divides unevenly; elsewhere the inputs take turns.
            for segments in cuts(numel) if numel in (7, 64) else cuts(numel)[number % 3 : number % 3 + 1]:
                yield x, segments


def bits(x: Tensor) -> bytes:
    return x.numpy().tobytes()


def compress(compressor: Compressor, x: Tensor, segments: Segments, key: Key = KEY) -> Payload | None:
    """The payload, or None where the operator may refuse: more entries to keep than there are."""
    try:
        return compressor.compress(x, key, segments)
    except ConfigError:
        assert getattr(compressor, "k", None) is not None
        assert compressor.k > segments.numel  # type: ignore[attr-defined]
        return None


def is_deterministic(compressor: Compressor) -> bool:
    """Whether no key changes anything, for short vectors and longer ones, of even entries and of few."""
    for numel, kind in ((64, "gaussian"), (1000, "gaussian"), (7, "spike")):
        x, whole = inputs(numel)[kind], Segments.whole(numel)
        if len({bits(encode(compressor.compress(x, Key(seed), whole))) for seed in range(40)}) > 1:
            return False
    return True


def draws(compressor: Compressor, x: Tensor, count: int, key: Key = OTHER_KEY) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Independent results for one vector, one a row: as many segments of the same content."""
    payload = compressor.compress(x.repeat(count), key, Segments.uniform(count * x.numel(), x.numel()))
    return payload.to_dense().double().reshape(count, -1).numpy()


def bound_z(alarm: float, num_tests: int) -> float:
    """|z| that ``num_tests`` standard normals all stay below but with probability ``alarm``."""
    return NormalDist().inv_cdf(1.0 - alarm / num_tests / 2.0)
