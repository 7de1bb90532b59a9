"""Published errors at d = 16384 on Gaussian, lognormal and Student-t vectors, one draw of the vector each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from thinwire.compressors import QSGD
from thinwire.compressors.k_level import KLevel
from thinwire.compressors.one_bit import OneBit
from thinwire.compressors.rotate import Rotate
from thinwire.compressors.tern_grad import TernGrad
from thinwire.layout import Segments
from thinwire.random import Key

NUMEL = 16384


def vector(kind: str, seed: int) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    laws: dict[str, Callable[[], np.ndarray]] = {
        "gaussian": lambda: generator.standard_normal(NUMEL),
        "lognormal": lambda: generator.choice([-1.0, 1.0], NUMEL) * np.exp(generator.standard_normal(NUMEL)),
        "student": lambda: generator.standard_t(2, NUMEL),
    }
    return torch.from_numpy(laws[kind]().astype(np.float32))


def errors(operator: Any, kind: str, segments: Segments) -> Any:
    """The relative square errors over 60 vectors, each drawn and compressed once."""
    found = []
    for seed in range(60):
        x = vector(kind, seed)
        decoded = operator.compress(x, Key(seed), segments).to_dense()
        found.append(float((decoded - x).double().square().sum() / x.double().square().sum()))
    return np.array(found)


WHOLE, BUCKETS = Segments.whole(NUMEL), Segments.uniform(NUMEL, 512)
CASES = [
    (KLevel(levels=2), WHOLE, (14.2, 293, 704)),
    (KLevel(levels=4), WHOLE, (1.16, 28, 73)),
    (Rotate(values=KLevel(levels=2)), WHOLE, (14.4, 14.3, 14.9)),
    (Rotate(values=KLevel(levels=4)), WHOLE, (1.17, 1.23, 1.20)),
    (Rotate(values=KLevel(levels=16)), WHOLE, (0.046,)),
    (KLevel(levels=129, span="norm", coding="entropy"), WHOLE, (0.33,)),
    (TernGrad(clip=None), WHOLE, (2.16, 10.4, 13.5)),
    (QSGD(levels=1, norm="max"), BUCKETS, (1.63, 4.60, 4.59)),
    (QSGD(levels=7, norm="max"), BUCKETS, (0.037, 0.30, 0.36)),
    (OneBit(), WHOLE, (0.360, 0.650, 0.747)),
]


@pytest.mark.parametrize(("operator", "segments", "published"), CASES, ids=[str(case[0]) for case in CASES])
def test_published_errors(operator: Any, segments: Segments, published: tuple[float, ...]) -> None:
    for kind, number in zip(("gaussian", "lognormal", "student"), published, strict=False):
        found = errors(operator, kind, segments)
        # A published number is one draw, which depends on the largest entries where tails are heavy: by a factor of
        # ten on Student's t. It must be a draw that happens; on Gaussian vectors it must be the typical one.
        assert found.min() <= number <= found.max(), (kind, number)
        if kind == "gaussian":
            assert np.median(found) == pytest.approx(number, rel=0.05)
        assert found.max() <= operator.traits(max(segments.distinct_sizes())).error
