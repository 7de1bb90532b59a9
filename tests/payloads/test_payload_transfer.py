"""Payloads on another device: of every kind that has a golden message, each tensor goes along and is seen."""

from typing import Any

import pytest
import torch
from golden_messages import golden_messages, message_of
from payload_tensors import tensors_in

from thinwire.payloads.transfer import device_of, to_device
from thinwire.wire import decode

META = torch.device("meta")


@pytest.mark.parametrize("entry", golden_messages(), ids=lambda entry: str(entry["description"]))
def test_all_tensors_go_along_and_are_found(entry: dict[str, Any]) -> None:
    payload = decode(message_of(entry))
    there = to_device(payload, META)
    assert type(there) is type(payload)
    ours, theirs = tensors_in(payload), tensors_in(there)
    assert [(each.shape, each.dtype) for each in theirs] == [(each.shape, each.dtype) for each in ours]
    assert all(each.is_cpu for each in ours)
    assert all(each.is_meta for each in theirs)
    assert device_of(payload) == torch.device("cpu")
    assert device_of(there) == (META if theirs else torch.device("cpu"))
