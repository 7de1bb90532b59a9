"""Processes with models on a device, under the hook of DDP and by synchronize, beside the same on the CPU."""

import functools
from pathlib import Path
from typing import Any

import device_mains as mains
import pytest
import torch
from place import IS_CUDA

from thinwire.experiments.launch import launch

SIZE = 2
ONE_WAIT = ("sgd", "bf16-sgd", "qsgd:bits=4")
"""Methods without an operation that only has a twin that waits."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("devices")
    launch(SIZE, functools.partial(mains.train_all, str(folder)))
    return [torch.load(Path(folder, f"rank-{rank}.pt"), weights_only=True) for rank in range(SIZE)]


@pytest.mark.parametrize(
    "name",
    [
        *(f"hooked {method}" for method in mains.HOOKED),
        *(f"synchronized {method}" for method in mains.SYNCHRONIZED),
        *(f"wrapped {method}" for method in mains.WRAPPED),
        *(f"checkpointed {method}" for method in mains.CHECKPOINTED),
        *(f"accelerated {method}" for method in mains.ACCELERATED),
        *(f"scripted {method}" for method in mains.SCRIPTED),
    ],
)
def test_a_device_has_the_bits_of_the_cpu(found: list[dict[str, Any]], name: str) -> None:
    for rank in range(SIZE):
        plain, pretended, races = found[rank][name]
        assert not races
        assert plain.get("bytes", 1) == pretended.get("bytes", 1) > 0  # a script that drops its handle counts none
        assert all(map(torch.equal, plain["parameters"], pretended["parameters"]))
        assert plain.get("state", {}).keys() == pretended.get("state", {}).keys()
        assert all(torch.equal(plain["state"][each], pretended["state"][each]) for each in plain.get("state", {}))


@pytest.mark.parametrize(
    "name", [*(f"hooked {method}" for method in mains.HOOKED), *(f"wrapped {method}" for method in mains.WRAPPED)]
)
def test_layers_are_reported_as_on_the_cpu(found: list[dict[str, Any]], name: str) -> None:
    """But for the last bits of norms, which a device adds up in its own order."""
    for rank in range(SIZE):
        plain, pretended, _ = found[rank][name]
        assert plain["report"]
        assert len(plain["report"]) == len(pretended["report"])
        for one, other in zip(plain["report"], pretended["report"], strict=True):
            assert one.keys() == other.keys()
            for what, number in one.items():
                is_rounded = isinstance(number, float)
                assert other[what] == (pytest.approx(number, rel=1e-9, abs=1e-9) if is_rounded else number)


@pytest.mark.skipif(IS_CUDA, reason="what a real device is waited for is not noted")
@pytest.mark.parametrize("method", ONE_WAIT)
def test_a_bucket_is_waited_for_once_on_its_way_out(found: list[dict[str, Any]], method: str) -> None:
    """And once on its way in, to know that the mean is finite; nothing else is waited for in a backward pass."""
    waits = found[0][f"hooked {method}"][1]["waits"]
    num_buckets = waits.count("Event.synchronize")
    assert num_buckets > 1
    assert len(waits) <= 2 * num_buckets


@pytest.mark.skipif(IS_CUDA, reason="what a real device's streams do is not noted")
@pytest.mark.parametrize("method", mains.HOOKED)
def test_buckets_are_exchanged_on_a_stream_of_their_own(found: list[dict[str, Any]], method: str) -> None:
    """It waits for each bucket, DDP's stream for each mean, and at the end the script's for all of it."""
    log = found[0][f"hooked {method}"][1]["log"]
    (lane,) = {entry.split()[1] for entry in log if entry.endswith("waits for an event")} - {"1"}
    assert log[-1] == f"stream 1 waits for stream {lane}"
    handed, taken, given = (
        [place for place, entry in enumerate(log) if entry == what]
        for what in ("stream 1 records an event", f"stream {lane} waits for an event", "stream 1 waits for an event")
    )
    # The next bucket may be handed over before the one before is taken up, but each only then.
    assert len(handed) == len(taken) == len(given) > 1
    assert all(first < second < third for first, second, third in zip(handed, taken, given, strict=True))


@pytest.mark.parametrize("method", mains.CHECKPOINTED)
def test_the_generator_of_the_device_goes_on(found: list[dict[str, Any]], method: str) -> None:
    random = found[0][f"checkpointed {method}"][1]["random"]
    assert torch.equal(random["random 0"], random["random 1"])
