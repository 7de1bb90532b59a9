"""A model in consecutive parts, each with a channel of its own."""

from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import Method, ModelAveraging
from thinwire.random import Key
from thinwire.worker.channel import Channel


def make_channels(method: Method, named: dict[str, Tensor], rank: int, size: int, key: Key) -> list[Channel]:
    """The parameters split into as many consecutive parts of equal length as the method has fragments.

    Raises:
        ConfigError: more fragments than entries, a parameter that would have to be split but is not contiguous, or a
            part of the method that does not fit.
    """
    layout = Layout.of(named)
    count = method.fragments if isinstance(method, ModelAveraging) else 1
    if count == 1:
        return [Channel(method, layout, list(named.values()), rank, size, key)]
    if count > layout.numel:
        raise ConfigError(f"{count} fragments of a model of {layout.numel} parameters were asked for; use fewer")
    bounds = [layout.numel * part // count for part in range(count + 1)]
    channels = []
    for number in range(count):
        pieces = _pieces(named, bounds[number], bounds[number + 1])
        channels.append(
            Channel(method, Layout.of(pieces), list(pieces.values()), rank, size, key.fold("fragment", number))
        )
    return channels


def _pieces(named: dict[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    """The parameters between two entries of the flat vector: whole ones as they are, split ones as flat views."""
    pieces = {}
    begin = 0
    for name, param in named.items():
        end = begin + param.numel()
        first, last = max(start, begin), min(stop, end)
        if first < last:
            if last - first == param.numel():
                pieces[name] = param
            elif param.is_contiguous():
                pieces[name] = param.detach().view(-1)[first - begin : last - begin]
            else:
                raise ConfigError(
                    f"parameter {name!r} would be split into fragments, but its memory is not contiguous; "
                    "make it contiguous or use fewer fragments"
                )
        begin = end
    return pieces
