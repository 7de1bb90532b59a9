"""Numbers of hundreds of digits in a method string: taken, or refused in one message that has an end."""

import contextlib

import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import CATALOG, check_method, parse_method

LAYOUT = Layout(("weight", "bias"), (torch.Size((4, 3)), torch.Size((4,))))
CASES = [(row.name, option) for row in CATALOG for option in row.options]


@pytest.mark.parametrize("text", ["9" * 400, "-" + "9" * 400, "9" * 5000, "1e400", "1" + "0" * 30])
@pytest.mark.parametrize(("name", "option"), CASES, ids=lambda value: str(value))
def test_a_huge_number_is_no_more_than_a_message(name: str, option: str, text: str) -> None:
    with contextlib.suppress(ConfigError):
        check_method(parse_method(f"{name}:{option}={text}"), LAYOUT)
