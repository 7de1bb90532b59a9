import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "fuzz_decode.py"
    spec = importlib.util.spec_from_file_location("fuzz_decode", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_short_run_finds_nothing(fuzzer: ModuleType) -> None:
    outcomes = fuzzer.fuzz(seed=1, first=0, number=5000)
    assert outcomes.total() == 5000
    assert outcomes["accepted"] > 200
    assert len(outcomes) > 30


def test_a_message_is_addressed_by_seed_and_number(fuzzer: ModuleType) -> None:
    one = [(place, message.tolist(), limit) for place, message, limit in fuzzer.messages(3, 990, 20)]
    two = [(place, message.tolist(), limit) for place, message, limit in fuzzer.messages(3, 1000, 10)]
    assert one[10:] == two
    assert one[0][0] == 990
