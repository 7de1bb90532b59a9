"""Numbers of hundreds of digits in a method string: taken, or refused in one message."""

import contextlib

import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import CATALOG, check_method, parse_method

LAYOUT = Layout(("weight", "bias"), (torch.Size((4, 3)), torch.Size((4,))))
HUGE = ("9" * 400, "-" + "9" * 400, "9" * 5000, "1" + "0" * 30)


@pytest.mark.parametrize("name", [row.name for row in CATALOG])
def test_a_huge_number_is_no_more_than_a_message(name: str) -> None:
    (options,) = (row.options for row in CATALOG if row.name == name)
    for option in options:
        for text in HUGE:
            with contextlib.suppress(ConfigError):
                check_method(parse_method(f"{name}:{option}={text}"), LAYOUT)
