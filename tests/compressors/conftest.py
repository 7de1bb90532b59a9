"""Every registered compressor, for tests that take a ``compressor``."""

from typing import Any

import pytest
from compressor_instances import Underivable, cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "compressor" in metafunc.fixturenames:
        metafunc.parametrize("compressor", cases(), ids=str, indirect=True)


@pytest.fixture
def compressor(request: pytest.FixtureRequest) -> Any:
    if isinstance(request.param, Underivable):
        pytest.fail(str(request.param))
    return request.param


@pytest.fixture
def all_cases() -> Any:
    """The function that derives the cases, for tests that register a compressor themselves."""
    return cases
