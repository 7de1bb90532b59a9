"""What a method is on a model: its parts tried on the vector, and what it does in so many steps."""

from dataclasses import replace

import torch

from thinwire.arrays import CPU, release
from thinwire.compressors import common_traits, segment_traits, tuned
from thinwire.errors import ConfigError
from thinwire.exchanges import AllReduce
from thinwire.layout import Layout, Segments
from thinwire.methods.base import GradientAveraging, Method
from thinwire.methods.zero_one_adam import DirectedUpdate
from thinwire.random import Key


def is_dense(method: Method) -> bool:
    """Whether every number of every gradient is sent as it is, in 32 or 16 bits: what other methods are compared with.

    Example:
        >>> from thinwire.methods import parse_method
        >>> is_dense(parse_method("sgd")), is_dense(parse_method("bf16-sgd")), is_dense(parse_method("local-sgd"))
        (True, True, False)
    """
    if not isinstance(method, GradientAveraging) or not isinstance(method.exchange, AllReduce):
        return False
    return replace(method, exchange=AllReduce()) == GradientAveraging()


def needs_gradients(method: Method) -> bool:
    """Whether a worker needs its gradient before the optimizer's own step, which then is by another one.

    Example:
        >>> from thinwire.methods import parse_method
        >>> [needs_gradients(parse_method(text)) for text in ("sgd", "beer", "01-adam", "choco")]
        [True, True, True, False]
    """
    if isinstance(method, GradientAveraging):
        return True
    return method.tracking is not None or isinstance(method.update, DirectedUpdate)


def num_exchanges(method: Method, rank: int, steps: int) -> int:
    """After how many of its first ``steps`` steps a worker exchanges.

    Example:
        >>> from thinwire.methods import parse_method
        >>> num_exchanges(parse_method("sgd"), 0, 10), num_exchanges(parse_method("local-sgd:every=4"), 0, 10)
        (10, 2)
    """
    if isinstance(method, GradientAveraging):
        return steps
    return sum(method.schedule.due(step, rank) for step in range(1, steps + 1))


def check_method(method: Method, layout: Layout) -> Segments:
    """The segments of the model's vector, once it is sure that the method's parts fit together on it.

    Raises:
        ConfigError: error feedback over an operator whose error is 1 or more on a segment of this model, or
            a part that refuses a vector of this length (more entries to keep than there are).
    """
    return fitted(method, layout)[1]


def fitted(method: Method, layout: Layout) -> tuple[Method, Segments]:
    """The method as it is on a model, with every number that follows from the compressor there; and its segments.

    Raises:
        ConfigError: as :func:`check_method`.

    Example:
        >>> from thinwire.methods import parse_method
        >>> layout = Layout(("w",), (torch.Size([100]),))
        >>> fitted(parse_method("diana:density=25%"), layout)[0].memory
        Shift(rate=0.25)
    """
    segments = method.granularity.segments(layout)
    for compressor in method.all_compressors():
        # A trial on zeros lets every part refuse the size on its own terms, before any training.
        compressor.compress(torch.zeros(layout.numel, dtype=torch.float32, device=CPU), Key(0), segments)
        error = segment_traits(compressor, segments).error
        if method.memory.needs_contraction and error >= 1.0:
            raise ConfigError(
                f"{compressor} is not a contraction on segments of {max(segments.distinct_sizes())} entries: "
                f"its error constant is {error:.3g}, and error feedback needs less than 1 or its memory may grow "
                "without bound. Use the scaled form (scaled=yes), more levels, smaller segments, or no memory"
            )
    release()  # what the trials took need not be wanted again
    traits = common_traits(method.all_compressors(), segments)
    memory, exchange = tuned(method.memory, traits), tuned(method.exchange, traits)
    if (memory, exchange) != (method.memory, method.exchange):
        method = replace(method, memory=memory, exchange=exchange)
    return method, segments
