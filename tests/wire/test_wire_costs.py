"""What a message costs is in proportion to its vector and its own length; nothing is accepted that was not agreed."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.transform import dct
from thinwire.layout import Segments
from thinwire.payloads import DCT, Concat, Constant, Dense, Payload, Rotated, Sparse, Sum
from thinwire.wire import decode, encode, encoded_num_bytes, explain, kinds_in, max_num_bytes


def one(numel: int) -> Payload:
    return Constant(torch.ones(1), Segments.whole(numel))


def nested(payload: Payload, times: int, around: Callable[[Payload], Payload]) -> Payload:
    for _ in range(times):
        payload = around(payload)
    return payload


LONG = 2**24
COSTLY: dict[str, Payload] = {
    "three nested DCTs": nested(one(LONG), 3, lambda inner: DCT(inner, 4096)),
    "seven nested DCTs": nested(one(LONG), 7, lambda inner: DCT(inner, 512)),
    "one large DCT": DCT(one(LONG), 4096),
    "sums of sums": nested(one(LONG), 3, lambda inner: Sum((inner,) * 32)),
    "sums of rotations": Sum((nested(one(LONG), 2, lambda inner: Rotated(inner, 5, 2)),) * 64),
    "a DCT beside a long vector": Concat((DCT(one(LONG), 4096), one(8))),
}


@pytest.mark.parametrize("name", COSTLY)
def test_work_out_of_proportion_is_refused_before_it_is_done(name: str) -> None:
    message = encode(COSTLY[name])
    with pytest.raises(WireError, match=r"operations are declared for a vector of \d+ entries"):
        decode(message, max_numel=2 * LONG)
    assert "operations are declared" in str(explain(message).error)


IN_PROPORTION: dict[str, Payload] = {
    "two DCTs": nested(one(2**16), 2, lambda inner: DCT(inner, 64)),
    "seven rotations": nested(one(2**16), 7, lambda inner: Rotated(inner, 5, 2)),
    "a sum of many": Sum((one(2**16),) * 64),
    "a large side and no whole chunk": nested(one(2**16), 7, lambda inner: DCT(inner, 4096)),
}


@pytest.mark.parametrize("name", IN_PROPORTION)
def test_what_is_in_proportion_is_accepted(name: str) -> None:
    message = encode(IN_PROPORTION[name])
    assert explain(message).error is None
    assert torch.equal(encode(decode(message)), message)


def test_the_side_of_a_square_costs_nothing_where_no_square_is_whole() -> None:
    """17 bytes, four entries."""
    message = encode(DCT(one(4), 4096))
    kept = dct._PADDED_BASES.num_kept_bytes + dct._BASES.num_kept_bytes
    decode(encode(DCT(one(9), 2))).to_dense()  # compiles
    tracemalloc.start()
    try:
        total = torch.zeros(4)
        decode(message, max_numel=4).add_to(total)
        assert decode(message, max_numel=4).to_dense().tolist() == total.tolist() == [1.0] * 4
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()
    assert dct._PADDED_BASES.num_kept_bytes + dct._BASES.num_kept_bytes <= kept + 2**12


def test_many_parts_of_nothing_share_their_tensors() -> None:
    parts = decode(encode(Concat((Dense(torch.zeros(0)),) * 100)))
    assert isinstance(parts, Concat)
    assert len({id(part.values) for part in parts.parts if isinstance(part, Dense)}) == 1


def test_kinds_that_were_not_agreed_are_refused_wherever_they_are() -> None:
    few = Sparse(9, torch.tensor([3]), Dense(torch.ones(1)))
    assert sorted(kinds_in(few)) == [1, 2]
    message = encode(Rotated(Sum((few, DCT(one(9), 2))), 1))
    assert sorted(kinds_in(decode(message))) == [1, 2, 8, 9, 11, 12]
    decode(message, kinds=kinds_in(decode(message)))
    for kind in kinds_in(decode(message)):
        with pytest.raises(WireError, match=rf"payload of kind {kind} \(.*\) came where .* are expected"):
            decode(message, kinds=kinds_in(decode(message)) - {kind})


NO_MESSAGES: tuple[Any, ...] = (b"tW", bytearray(9), [1, 2], np.zeros(9, np.uint8), None, "tW", Dense(torch.ones(1)))


@pytest.mark.parametrize("given", NO_MESSAGES, ids=lambda given: type(given).__name__)
@pytest.mark.parametrize("read", [decode, explain], ids=lambda read: read.__name__)
def test_what_is_no_tensor_is_refused_with_what_to_give(read: Callable[[Any], object], given: Any) -> None:
    with pytest.raises(ConfigError, match=rf"a {type(given).__name__} was given; a message is a uint8 vector"):
        read(given)
    data = encode(Dense(torch.ones(1))).numpy().tobytes()
    assert decode(torch.frombuffer(bytearray(data), dtype=torch.uint8)).to_dense().tolist() == [1.0]


@pytest.mark.parametrize("given", [torch.ones(3), [1.0], None, b"x"], ids=lambda given: type(given).__name__)
@pytest.mark.parametrize(
    "write", [encode, encoded_num_bytes, max_num_bytes, kinds_in], ids=lambda write: write.__name__
)
def test_what_is_no_payload_is_refused(write: Callable[[Any], object], given: Any) -> None:
    with pytest.raises(ConfigError, match=f"no code for a payload of type {type(given).__name__}"):
        write(given)
