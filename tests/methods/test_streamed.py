"""Where no vector is made of what is sent, no bit differs."""

from typing import Any

import pytest
import torch
from method_cases import CATALOGUE, OPTIMIZERS, Crew, bits
from torch import Tensor

from thinwire.compressors import top_k
from thinwire.errors import NumericsError
from thinwire.kernels.select.difference import top_k_of_difference
from thinwire.memory import Difference
from thinwire.methods import ModelAveraging, parse_method
from thinwire.worker import channel, needs_server

FEW = ["topk:k=1,every=2", "signtopk:k=1,every=3", "mem-sgd:select=top,k=1"]
METHODS = [text for text in CATALOGUE if not needs_server(parse_method(text))]


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Vectors are long from the first entry on; what is made of them all the same."""
    monkeypatch.setattr(channel, "STREAMED_NUMEL", 0)
    made: list[str] = []
    make = Difference.make

    def noted(difference: Difference) -> Tensor:
        made.append("a vector")
        return make(difference)

    monkeypatch.setattr(Difference, "make", noted)
    return made


def state(crew: Crew) -> list[bytes]:
    """Everything that training leaves."""
    found = [bits(param) for model in crew.models for param in model.parameters()]
    return found + [bits(each) for worker in crew.workers for each in worker.state_dict()["tensors"].values()]


@pytest.mark.parametrize("text", [*(text for text in METHODS if isinstance(parse_method(text), ModelAveraging)), *FEW])
def test_training_has_the_same_bits(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for numel in (1 << 60, 0):
        monkeypatch.setattr(channel, "STREAMED_NUMEL", numel)
        found.append(state(Crew(parse_method(text), 3, OPTIMIZERS["momentum"]).run(7)))
    assert found[0] == found[1]


@pytest.mark.parametrize("text", FEW)
def test_top_entries_need_no_vector(text: str, streamed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    selected: list[int] = []

    def counted(*given: Any) -> Any:
        selected.append(given[-1])
        return top_k_of_difference(*given)

    monkeypatch.setattr(top_k, "top_k_of_difference", counted)
    crew = Crew(parse_method(text), 3).run(6)
    assert streamed == []
    assert selected == [1] * sum(worker.num_exchanges for worker in crew.workers)
    assert all(bool(worker.memory_norm() > 0) for worker in crew.workers)


@pytest.mark.parametrize("text", FEW)
def test_an_exchange_that_fails_leaves_the_memory_as_it_was(text: str, streamed: list[str]) -> None:
    method = parse_method(text)
    assert isinstance(method, ModelAveraging)
    crew = Crew(method, 3).run(6)
    kept = [[bits(each) for each in worker.state_dict()["tensors"].values()] for worker in crew.workers]
    next(crew.models[1].parameters()).register_hook(lambda grad: grad * torch.nan)
    with pytest.raises(NumericsError):
        crew.run(3)
    assert kept == [[bits(each) for each in worker.state_dict()["tensors"].values()] for worker in crew.workers]
