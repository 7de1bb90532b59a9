"""A kernel runs where its arguments lie, whichever device is current."""

from types import TracebackType
from typing import Any, Self

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from thinwire.kernels.jit.launches import Argument, launch

current: list[torch.device] = []


class Current:
    """As ``torch.cuda.device``, where there is no CUDA."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> Self:
        current.append(self._device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        current.pop()


class Recorder:
    """A kernel that notes how it was launched."""

    def __init__(self) -> None:
        self.launched: list[Any] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **constants: self.launched.append((grid, list(current), arguments, constants))


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device", Current)


@pytest.mark.parametrize("place", ["cuda:0", "cuda:1"])
def test_the_device_of_the_arguments_is_current(place: str) -> None:
    with FakeTensorMode():
        arguments: list[Argument] = [3, torch.empty(2, device=place), 0.5]
    kernel = Recorder()
    launch(kernel, 7, arguments, {"BLOCK": 4}, num_warps=2)
    ((grid, devices, given, constants),) = kernel.launched
    assert grid == (7,)
    assert devices == [torch.device(place)]
    assert given[0] == 3
    assert given[1] is arguments[1]
    assert constants == {"BLOCK": 4, "num_warps": 2, "enable_fp_fusion": False}
    assert not current


@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_of_other_devices_nothing_is_made_current(place: str) -> None:
    kernel = Recorder()
    launch(kernel, 1, [torch.empty(2, device=place)], {})
    assert [devices for _, devices, _, _ in kernel.launched] == [[]]


def test_nothing_is_launched_for_no_programs() -> None:
    kernel = Recorder()
    launch(kernel, 0, [torch.empty(0)], {})
    assert not kernel.launched
