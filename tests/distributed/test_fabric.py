"""Sums and gathers by a backend's own collectives: answers and counts are those of links and of the simulator."""

import functools
from pathlib import Path
from typing import Any

import process_mains as mains
import pytest
import torch

from thinwire.distributed import LinkOptions
from thinwire.errors import ConfigError
from thinwire.experiments.launch import launch
from thinwire.simulator import Simulation

SIZE = 3


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fabric")
    launch(SIZE, functools.partial(mains.request_by_collectives, str(folder)))
    return [mains.saved(Path(folder, f"rank-{rank}.pt")) for rank in range(SIZE)]


@pytest.mark.parametrize("number", range(len(mains.PROGRAMS)), ids=[p.__name__ for p in mains.PROGRAMS])
def test_answers_and_counts_are_the_simulators(number: int, found: list[dict[str, Any]]) -> None:
    simulation = Simulation(SIZE)
    answers = simulation.run([mains.PROGRAMS[number](rank) for rank in range(SIZE)])
    for rank in range(SIZE):
        answer, (sent, received) = found[rank]["programs"][number]
        assert mains.equal(answer, answers[rank])
        assert (sent, received) == (simulation.traffic[rank].bytes_sent, simulation.traffic[rank].bytes_received)


def test_what_is_longer_than_agreed_is_refused(found: list[dict[str, Any]]) -> None:
    """A short one before it is sent; of a long one everybody hears the length first."""
    assert [len(each["refused"]) for each in found] == [1, 2, 2]
    assert all("worker 1 announced a message of 1048577 bytes" in each["refused"][-1] for each in found)


def test_nccl_is_refused_where_there_is_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="leave it out"):
        launch(2, mains.ask_for_nccl)


def test_an_unknown_transport_is_refused() -> None:
    with pytest.raises(ConfigError, match="transport"):
        LinkOptions(transport="carrier pigeon")  # type: ignore[arg-type]
