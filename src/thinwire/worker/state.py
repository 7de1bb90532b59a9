"""The state of channels as tensors by name, and back."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thinwire.config import with_current_names
from thinwire.errors import ConfigError
from thinwire.exchanges import Aggregate
from thinwire.layout import Layout
from thinwire.payloads import Dense
from thinwire.worker.channel import Channel, Pending


def named_tensors(channels: Sequence[Channel], layout: Layout) -> dict[str, Tensor]:
    """``part.kind.parameter`` for what has an entry for each parameter's; ``part.kind.#fragment`` for the rest.

    A kind that is of one parameter is itself called ``kind.parameter``.

    Args:
        channels: consecutive parts of one vector.
        layout: names and shapes of the whole.
    """
    found: dict[str, Tensor] = {}
    for place, pieces in _pieces(channels).items():
        if vectors := _as_vectors(channels, pieces):
            flat = vectors[0] if len(vectors) == 1 else torch.cat(vectors)
            found |= {f"{place}.{name}": view for name, view in layout.unflatten(flat).items()}
        else:
            found |= {f"{place}.#{number}": piece for number, piece in enumerate(pieces) if piece is not None}
    for number, channel in enumerate(channels):
        if channel.pending is not None:
            found[f"pending.mean.#{number}"] = channel.pending.aggregate.mean
            found[f"pending.sent.#{number}"] = channel.pending.aggregate.sent.to_dense()
    return found


def check_same(saved: Mapping[str, Any], own: Mapping[str, Any], whose: str) -> None:
    """Raise :class:`ConfigError` unless the saved counters have each of these values of one's own."""
    for name, mine in own.items():
        was = saved[name]
        if (with_current_names(was) if isinstance(was, str) else was) != mine:
            raise ConfigError(f"the saved state is of {name} {was}, but this {whose} has {name} {mine}")


def load_tensors(
    channels: Sequence[Channel], layout: Layout, saved: Mapping[str, Tensor], pending: Sequence[int | None]
) -> None:
    """Copy what :func:`named_tensors` gave into the channels.

    What rounding took from sums (a kind that ends in ``rounding``) may be missing: states of before it was kept have
    none, and it begins at zero.

    Raises:
        ConfigError: tensors of another model; nothing is changed.
    """
    own = {name: tensor.shape for name, tensor in named_tensors(channels, layout).items() if not _waits(name)}
    given = {name: tensor.shape for name, tensor in saved.items() if not _waits(name)}
    missing = {name for name in own.keys() - given.keys() if _is_rounding(name)}
    own = {name: shape for name, shape in own.items() if name not in missing}
    if own != given:
        differing = sorted(own.keys() ^ given.keys()) or [name for name in own if own[name] != given[name]]
        raise ConfigError(
            f"the saved state is of another model: it differs in {', '.join(differing[:3])}"
            f"{' and others' if len(differing) > 3 else ''}"
        )
    sizes = [channel.layout.numel for channel in channels]
    for place, pieces in _pieces(channels).items():
        if vectors := _as_vectors(channels, pieces):
            if any(f"{place}.{name}" in missing for name in layout.names):
                torch._foreach_zero_(vectors)
                continue
            flat = torch.cat([saved[f"{place}.{name}"].reshape(-1) for name in layout.names])
            for vector, source in zip(vectors, torch.split(flat, sizes), strict=True):
                vector.copy_(source)
            continue
        for number, piece in enumerate(pieces):
            if piece is not None:
                piece.copy_(saved[f"{place}.#{number}"])
    for number, (channel, due) in enumerate(zip(channels, pending, strict=True)):
        channel.pending = None
        if due is not None:
            mean, sent = (saved[f"pending.{what}.#{number}"].clone() for what in ("mean", "sent"))
            channel.pending = Pending(Aggregate(mean, True, 0, Dense(sent), channel.size), due)


def _is_rounding(name: str) -> bool:
    return name.split(".")[1].endswith("rounding")


def _waits(name: str) -> bool:
    return name.startswith("pending.")


def _pieces(channels: Sequence[Channel]) -> dict[str, list[Tensor | None]]:
    """Each kind of state, in every channel; None where a channel has none of it."""
    states = {
        "memory": [channel.memory for channel in channels],
        "update": [channel.update for channel in channels],
        "exchange": [channel.exchange for channel in channels],
        "rounding": [channel.rounding for channel in channels],
    }
    return {
        f"{part}.{kind}": [state.get(kind) for state in each]
        for part, each in states.items()
        for kind in dict.fromkeys(itertools.chain(*each))
    }


def _as_vectors(channels: Sequence[Channel], pieces: Sequence[Tensor | None]) -> list[Tensor]:
    """The pieces, if each is a vector with an entry for every parameter's of its channel; else nothing."""
    found = [
        piece
        for channel, piece in zip(channels, pieces, strict=True)
        if piece is not None and piece.shape == (channel.layout.numel,) and piece.dtype == torch.float32
    ]
    return found if len(found) == len(pieces) else []
