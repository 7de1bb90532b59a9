import json
from typing import Any

import pytest
import torch
from golden_messages import contents, golden_messages, message_of
from payload_tensors import tensors_in

from thinwire.wire import decode, encode, explain
from thinwire.wire.kinds import NAMES

MESSAGES = golden_messages()


def canonical(value: Any) -> str:
    """Text that is equal for equal contents, NaN and the sign of zero included."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("entry", MESSAGES, ids=lambda entry: str(entry["description"]))
def test_it_decodes_to_what_is_written_down(entry: dict[str, Any]) -> None:
    message = message_of(entry)
    payload = decode(message)
    assert canonical(contents(payload)) == canonical(entry["contents"])
    assert torch.equal(encode(payload), message) == entry["is_what_an_encoder_writes"]
    assert explain(message).error is None


@pytest.mark.parametrize("entry", MESSAGES, ids=lambda entry: str(entry["description"]))
def test_the_tensors_of_every_kind_go_to_the_device_that_is_asked_for(entry: dict[str, Any]) -> None:
    here, there = decode(message_of(entry)), decode(message_of(entry), device="meta")
    assert (type(there), there.numel) == (type(here), here.numel)
    assert [(tensor.dtype, tensor.shape) for tensor in tensors_in(there)] == [
        (tensor.dtype, tensor.shape) for tensor in tensors_in(here)
    ]
    assert tensors_in(there)
    assert all(tensor.is_meta for tensor in tensors_in(there))
    assert all(tensor.is_cpu for tensor in tensors_in(decode(message_of(entry), device="cpu")))


def test_every_kind_code_and_number_is_among_them() -> None:
    said = {(name.strip(), value) for entry in MESSAGES for _, _, name, value in explain(message_of(entry)).rows()}
    assert {("kind", f"{number}: {name}") for number, name in NAMES.items()} <= said
    assert len(NAMES) == 14
    assert all(("format", number) in said for number in ["0: f32", "1: bf16", "2: f16"])
    codes = ["0: fixed width", "1: Rice", "2: bitmap", "3: exp-Golomb", "4: adaptive"]
    assert all(("index code", code) in said for code in codes)
    assert all(("level code", code) in said for code in ["0: packed", "1: Elias omega", "2: entropy"])
    assert all(("coding", code) in said for code in ["0: packed", "2: entropy"])
    assert all(("table", f"Gaussian, {2**bits} numbers") in said for bits in (1, 2, 4, 8))
    assert all(("rounds", rounds) in said for rounds in "12")
    cuts = {value.split()[-1] for name, value in said if name == "segments"}
    assert cuts == {"vector", "entries", "sizes"}
