"""Messages of many workers added up block by block have the bits of one added after another."""

from typing import Any

import numpy as np
import pytest
import torch
from compressor_cases import KEY, compress, cuts, inputs

from thinwire.exchanges.reading import MessageReader
from thinwire.wire import encode


@pytest.mark.parametrize(("numel", "size"), [(0, 2), (1000, 1), (1, 2), (1000, 3), (64, 64)])
def test_the_mean_has_the_bits_of_one_after_another(compressor: Any, numel: int, size: int) -> None:
    vectors = list(inputs(numel).values()) if numel else [torch.empty(0)]
    number = size % 3
    segments = cuts(numel)[number]
    chosen = [vectors[rank % len(vectors)] for rank in range(size)]
    made = [compress(compressor, x, segments, KEY.fold("rank", rank)) for rank, x in enumerate(chosen)]
    payloads = [payload for payload in made if payload is not None]
    assert len(payloads) in (0, size)
    if not payloads:
        return
    total = np.zeros(numel, np.float32)
    for payload in payloads:
        total += payload.to_dense().numpy()
    with np.errstate(all="ignore"):
        expected = total / np.float32(size)
    reader = MessageReader(numel)
    mean, finite = reader.mean(list(map(encode, payloads)))
    assert mean.numpy().tobytes() == expected.tobytes()
    assert finite == bool(np.isfinite(expected).all())
    assert reader.sum(payloads).numpy().tobytes() == total.tobytes()
