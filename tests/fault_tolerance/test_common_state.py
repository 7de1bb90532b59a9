"""What is common travels as plain bytes; whatever comes is that, or a protocol error."""

import random

import pytest
import torch

from thinwire.errors import ProtocolError
from thinwire.fault_tolerance.common import Applied, Common, max_num_bytes

COMMON = Common(
    {"method": "m", "seed": 0, "num_steps": 12, "num_exchanges": 4},
    {"update.reference.w": torch.arange(6, dtype=torch.float32).view(2, 3), "update.reference.b": torch.zeros(0)},
    {"count": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16), "flag": torch.tensor([True])},
    {"a": Applied("x-1", 0.5), "b": Applied("y-2", 0.0)},
)


def test_it_arrives_as_it_was() -> None:
    found = Common.of_bytes(COMMON.to_bytes())
    assert (found.counters, found.applied) == (COMMON.counters, COMMON.applied)
    for sent, came in ((COMMON.tensors, found.tensors), (COMMON.rest, found.rest)):
        assert list(sent) == list(came)
        for name, each in sent.items():
            assert came[name].dtype == each.dtype
            assert torch.equal(came[name], each)
    assert COMMON.to_bytes().numel() <= max_num_bytes(COMMON)


@pytest.mark.parametrize("seed", range(300))
def test_damaged_bytes_are_a_protocol_error_or_another_state(seed: int) -> None:
    generator = random.Random(seed)
    data = bytearray(COMMON.to_bytes().numpy().tobytes())
    for _ in range(generator.randint(1, 4)):
        kind = generator.randrange(3)
        if kind == 0 and data:
            data[generator.randrange(len(data))] = generator.randrange(256)
        elif kind == 1:
            del data[generator.randrange(len(data) + 1) :]
        else:
            data += bytes(generator.randrange(256) for _ in range(generator.randrange(9)))
    message = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    try:
        found = Common.of_bytes(message)
    except ProtocolError:
        return
    assert sum(each.nbytes for each in (*found.tensors.values(), *found.rest.values())) <= len(data)


def test_no_memory_is_taken_for_what_is_only_announced() -> None:
    header = b'{"counters": {}, "tensors": [["w", "float32", [4611686018427387904]]], "rest": [], "applied": {}}'
    data = len(header).to_bytes(8, "little") + header
    with pytest.raises(ProtocolError, match="ends within 'w'"):
        Common.of_bytes(torch.frombuffer(bytearray(data), dtype=torch.uint8))
