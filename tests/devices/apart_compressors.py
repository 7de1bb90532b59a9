"""Every compressor on a device beside the CPU: the same messages, byte for byte, and the same vectors from them."""

from typing import Any

import pytest
import torch
from compressor_cases import KEY, compress, situations
from compressor_instances import Underivable, cases
from golden_messages import golden_messages, message_of
from place import DEVICE, IS_CUDA, host, working
from torch import Tensor

from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback
from thinwire.wire import decode, encode


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), host(other).view(torch.int32))


@pytest.mark.parametrize("compressor", cases(), ids=str)
def test_messages_and_vectors_are_those_of_the_cpu(compressor: Any) -> None:
    if isinstance(compressor, Underivable):
        pytest.fail(str(compressor))
    chosen = list(situations((7, 64, 1000)))
    if not IS_CUDA:  # each operation on a segment takes its time there
        chosen = [each for each in chosen if each[1].count <= 3][9::24]
    for x, segments in chosen:
        payload = compress(compressor, x, segments)
        if payload is None:
            continue
        message, total = encode(payload), torch.linspace(-3.0, 4.0, x.numel())
        expected, dense = total.clone(), payload.to_dense()
        payload.add_to(expected, 0.3)
        with working():
            there = compressor.compress(x.to(DEVICE), KEY, segments)
            assert torch.equal(encode(there), message)
            for each in (there, decode(message, device=DEVICE)):
                assert same_bits(dense, each.to_dense())
                sum_there = total.to(DEVICE)
                each.add_to(sum_there, 0.3)
                assert same_bits(expected, sum_there)


@pytest.mark.parametrize("compressor", [each for each in cases() if not isinstance(each, Underivable)], ids=str)
def test_residuals_are_those_of_the_cpu(compressor: Any) -> None:
    memory, generator = ErrorFeedback(decay=0.9), torch.Generator().manual_seed(3)
    for segments in (Segments.whole(300), Segments.of_sizes([100, 0, 1, 199]))[0 if IS_CUDA else 1 :]:
        if compress(compressor, torch.ones(300), segments) is None:
            continue
        state, vectors = memory.init(torch.empty(300)), torch.randn(2, 300, generator=generator)
        with working():
            state_there = memory.init(torch.empty(300).to(DEVICE))
        for number, x in enumerate(vectors):
            sent, state = memory.compress(x.clone(), compressor, KEY.fold(number), segments, state)
            with working():
                there, state_there = memory.compress(x.to(DEVICE), compressor, KEY.fold(number), segments, state_there)
                assert torch.equal(encode(there), encode(sent))
                assert same_bits(state["residual"], state_there["residual"])


@pytest.mark.parametrize("entry", golden_messages(), ids=lambda entry: str(entry["description"]))
def test_golden_messages_are_made_by_the_device(entry: dict[str, Any]) -> None:
    message = message_of(entry)
    again = encode(decode(message))
    with working():
        there = decode(message, device=DEVICE)
        assert torch.equal(encode(there), again)
        if there.numel < 1 << 20:
            assert same_bits(decode(message).to_dense(), there.to_dense())
