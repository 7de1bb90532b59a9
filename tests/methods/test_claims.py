"""What the README claims of bytes, as far as it does not depend on training."""

import math

import pytest
import torch

from thinwire.layout import Segments
from thinwire.methods import parse_method
from thinwire.methods.base import ModelAveraging
from thinwire.methods.schedules import Every
from thinwire.random import Key
from thinwire.wire import encode

FASHION_MNIST_PARAMETERS = 206_922


@pytest.mark.parametrize(
    ("text", "times_fewer"), [("signtopk:density=1%,every=8", 2_750), ("signtopk:density=2%,every=16", 3_100)]
)
def test_message_bytes_of_a_step_even_on_independent_supports(text: str, times_fewer: int) -> None:
    method = parse_method(text)
    assert isinstance(method, ModelAveraging)
    assert isinstance(method.schedule, Every)
    x = torch.randn(FASHION_MNIST_PARAMETERS, generator=torch.Generator().manual_seed(0))
    message = encode(method.compressor.compress(x, Key(0), Segments.whole(x.numel())))
    assert 4 * x.numel() * method.schedule.steps / message.numel() >= times_fewer
    # Positions that are drawn independently cannot be told in fewer bits than log2 C(d, k); signs take one each.
    k = round(float(text.split("density=")[1].split("%")[0]) / 100 * x.numel())
    numel = x.numel()
    entropy = (math.lgamma(numel + 1) - math.lgamma(k + 1) - math.lgamma(numel - k + 1)) / math.log(2)
    assert 8 * message.numel() <= 1.01 * entropy + k + 8 * 32
