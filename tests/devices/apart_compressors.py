"""Every compressor on a device beside the CPU: the same messages, byte for byte, and the same vectors from them."""

from typing import Any

import pytest
import torch
from compressor_cases import KEY, compress, situations
from compressor_instances import Underivable, cases
from golden_messages import golden_messages, message_of
from place import DEVICE, IS_CUDA, host, working
from rounding import rounding_otherwise
from torch import Tensor

from thinwire.compressors import QSGD, Compressor, Half, Identity, Sign, Threshold, TopK
from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback
from thinwire.wire import decode, encode

MADE: dict[str, tuple[Compressor, bool]] = {
    "dense, f32": (Identity(), False),
    "dense, f32, special numbers": (Identity(), False),
    "dense, bf16": (Half(format="bf16"), False),
    "dense, f16": (Half(format="f16"), False),
    "dense, a length of two bytes": (Half(format="f16"), False),
    "sparse, nothing kept": (Threshold(threshold=1.0), False),
    "sparse, Rice": (TopK(k=50, values=Sign()), False),
    "sparse, bitmap": (TopK(k=48, values=Sign()), False),
    "sparse, adaptive": (TopK(k=20, values=Sign()), False),
    "signs, whole": (Sign(), False),
    "signs, uniform segments": (Sign(), True),
    "levels, packed, 1": (QSGD(levels=1, norm="max", coding="packed"), True),
    "levels, Elias omega, 1": (QSGD(levels=1, norm="max", coding="elias"), True),
    "levels, entropy, form 0": (QSGD(levels=1, norm="max", coding="entropy"), True),
    "levels, entropy, rANS, one level": (QSGD(levels=1, norm="max", coding="entropy"), True),
    "levels, entropy, rANS, low bits": (QSGD(levels=200, norm="max", coding="entropy"), True),
}
"""Golden messages that compressing what they decode to gives again, by what, and whether in the message's segments.

Of the others nobody knows what they were made of: lists of codes that no largest entry scales, hand-made nests of
payloads, and orders of codes that an encoder does not choose.
"""


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
        with working(), rounding_otherwise():
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
        with working(), rounding_otherwise():
            state_there = memory.init(torch.empty(300).to(DEVICE))
        for number, x in enumerate(vectors):
            sent, state = memory.compress(x.clone(), compressor, KEY.fold(number), segments, state)
            with working(), rounding_otherwise():
                there, state_there = memory.compress(x.to(DEVICE), compressor, KEY.fold(number), segments, state_there)
                assert torch.equal(encode(there), encode(sent))
                assert same_bits(state["residual"], state_there["residual"])


@pytest.mark.parametrize("entry", golden_messages(), ids=lambda entry: str(entry["description"]))
def test_golden_messages_are_read_and_written_by_the_device(entry: dict[str, Any]) -> None:
    message = message_of(entry)
    again = encode(decode(message))
    with working(), rounding_otherwise():
        there = decode(message, device=DEVICE)
        assert torch.equal(encode(there), again)
        if there.numel < 1 << 20:
            assert same_bits(decode(message).to_dense(), there.to_dense())


def test_golden_messages_are_compressed_by_the_device() -> None:
    entries = {str(entry["description"]): entry for entry in golden_messages()}
    for description, (compressor, in_segments) in MADE.items():
        message = message_of(entries[description])
        payload = decode(message)
        segments: Any = getattr(payload, "segments", None)
        x, cut = payload.to_dense(), segments if in_segments else Segments.whole(payload.numel)
        assert torch.equal(encode(compressor.compress(x.clone(), KEY, cut)), message), description
        with working(), rounding_otherwise():
            assert torch.equal(encode(compressor.compress(x.to(DEVICE), KEY, cut)), message), description
