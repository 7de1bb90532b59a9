"""Asynchronous methods over real processes: another order every time, the same neighbourhood."""

import functools
from pathlib import Path
from typing import Any

import process_mains as mains
import pytest

from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.launch import launch
from thinwire.methods import CATALOG, parse_method
from thinwire.worker import needs_server

METHODS = [row.name for row in CATALOG if needs_server(parse_method(row.name))]
SIZE = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asynchronous")
    launch(SIZE + 1, functools.partial(mains.train_asynchronously, str(folder)))
    return folder


@pytest.mark.parametrize("number", range(len(METHODS)), ids=METHODS)
def test_processes_end_near_the_simulation(number: int, folder: Path, tmp_path: Path) -> None:
    setting = mains.ASYNCHRONOUS[number]
    assert setting.method.partition(":")[0] == METHODS[number]
    simulated = mains.train(lambda: SimulatedEngine(SIZE, mains.NETWORK, True), "simulate", setting, tmp_path)
    everyone: list[dict[str, Any]] = [mains.saved(folder / f"rank-{rank}.pt")[number] for rank in range(SIZE + 1)]
    for found in everyone:
        assert [record["step"] for record in found["records"]] == [each["step"] for each in simulated["records"]]
        assert found["records"] == everyone[0]["records"]
    first, last = everyone[0]["records"][0], everyone[0]["records"][-1]
    expected = simulated["records"][-1]
    assert first["value"] < 0.5 < 0.85 < last["value"]
    assert last["value"] == pytest.approx(expected["value"], abs=0.1)
    # A worker makes a message more or less than its share.
    assert last["message_bytes"] == pytest.approx(expected["message_bytes"], rel=0.1)
    assert last["bytes_received"] == pytest.approx(expected["bytes_received"], rel=0.1)
    assert [sorted(found["workers"]) for found in everyone] == [[0], [1], [2], []]
