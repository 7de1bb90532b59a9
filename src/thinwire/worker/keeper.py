"""What channels remember, as tensors by name: saved, loaded, and kept for parameters that are in no channel now."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinwire.arrays import CPU, copy_of, to_device
from thinwire.errors import ConfigError
from thinwire.exchanges import Aggregate
from thinwire.layout import Layout, State
from thinwire.payloads import Dense
from thinwire.worker.channel import Channel, Pending


@dataclass(slots=True, eq=False)
class Keeper:
    """Channels, and everything that is remembered of their parameters and of others.

    A vector with an entry for each of a channel's is called ``part.kind.parameter``, parameter by parameter. All else
    belongs to a channel: it is called ``part.kind.#number`` after the channel's place or, where every parameter is
    whole in one channel, ``part.kind.#parameter`` after the channel's first; there a kind ``kind.parameter`` needs no
    more than its own name.

    Args:
        whole: names and shapes of the vector of which the channels are consecutive parts, which may cut a parameter;
            None where every parameter is whole in one channel.
    """

    whole: Layout | None
    channels: list[Channel] = field(init=False, default_factory=list)
    waiting: dict[str, Tensor] = field(init=False, default_factory=dict)
    """What is remembered of parameters that are in no channel now."""

    def add(self, channels: Iterable[Channel]) -> None:
        """New channels, which take over what waits for their parameters; all else in them is as it begins."""
        self.channels.extend(channels)
        for name in self.fill(self.waiting):
            del self.waiting[name]

    def park(self, channels: Collection[Channel]) -> None:
        """These channels are no more; what they remember waits."""
        parked = Keeper(self.whole)
        parked.channels = [channel for channel in self.channels if channel in channels]
        self.channels = [channel for channel in self.channels if channel not in channels]
        self.waiting |= parked.live()

    def live(self) -> dict[str, Tensor]:
        """What the channels remember: views of it, but of parameters that they cut."""
        return {name: self._joined(name, pieces) for name, pieces in self._pieces().items()}

    def tensors(self) -> dict[str, Tensor]:
        """All of it, with what waits and with results that are to be applied later."""
        found = self.waiting | self.live()
        for number, channel in enumerate(self.channels):
            if channel.pending is not None:
                found[f"pending.mean.#{number}"] = channel.pending.aggregate.mean
                found[f"pending.sent.#{number}"] = channel.pending.aggregate.sent.to_dense()
        return found

    def fill(self, known: Mapping[str, Tensor]) -> list[str]:
        """Copy tensors into the channels; the names of those that were found there, with the same shapes."""
        pieces = {name: each for name, each in self._pieces().items() if name in known}
        fitting = {name: each for name, each in pieces.items() if known[name].shape == self._joined(name, each).shape}
        for name, each in fitting.items():
            sources = torch.split(known[name].reshape(-1), [piece.numel() for piece in each])
            for piece, source in zip(each, sources, strict=True):
                piece.copy_(source.view(piece.shape))
        return list(fitting)

    def load(self, saved: Mapping[str, Tensor], pending: Sequence[int | None]) -> None:
        """Let the channels remember what :meth:`tensors` gave of them, and nothing else.

        What rounding took from sums (a kind that ends in ``rounding``) may be missing: states of before it was kept
        have none, and it begins at zero.

        Args:
            saved: by name.
            pending: when the result that waits to be applied is due, of each channel.

        Raises:
            ConfigError: tensors of another model; nothing is changed.
        """
        own, given = _shapes(self.live()), _shapes(saved)
        missing = {name for name in own.keys() - given.keys() if name.split(".")[1].endswith("rounding")}
        if {name: shape for name, shape in own.items() if name not in missing} != given:
            differing = sorted((own.keys() - missing) ^ given.keys())
            differing = differing or [name for name in given if own[name] != given[name]]
            raise ConfigError(
                f"the saved state is of another model: it differs in {', '.join(differing[:3])}"
                f"{' and others' if len(differing) > 3 else ''}"
            )
        self.fill({**saved, **{name: torch.zeros(own[name], dtype=torch.float32, device=CPU) for name in missing}})
        for number, (channel, due) in enumerate(zip(self.channels, pending, strict=True)):
            channel.pending = None
            if due is not None:
                mean, sent = (
                    to_device(copy_of(saved[f"pending.{what}.#{number}"]), channel.device) for what in ("mean", "sent")
                )
                channel.pending = Pending(Aggregate(mean, True, 0, Dense(sent), channel.size), due)

    def _joined(self, name: str, pieces: Sequence[Tensor]) -> Tensor:
        """A tensor from all its pieces."""
        if len(pieces) == 1:
            return pieces[0]
        assert self.whole is not None
        shapes = dict(zip(self.whole.names, self.whole.shapes, strict=True))
        return torch.cat([piece.view(-1) for piece in pieces]).view(shapes[name.split(".", 2)[2]])

    def _pieces(self) -> dict[str, list[Tensor]]:
        """What the channels have of each tensor, by its name: all of it, or more than one piece of a parameter's."""
        found: dict[str, list[Tensor]] = {}
        for number, channel in enumerate(self.channels):
            names = channel.layout.names
            mark = f"#{names[0] if self.whole is None else number}"
            for part, state in _states(channel).items():
                for kind, tensor in by_parameter(state, channel.layout).items():
                    is_parameters = kind not in state or (self.whole is None and kind.partition(".")[2] in names)
                    name = f"{part}.{kind}" if is_parameters else f"{part}.{kind}.{mark}"
                    found.setdefault(name, []).append(tensor)
        return found


def by_parameter(state: State, layout: Layout) -> dict[str, Tensor]:
    """A state with ``kind.parameter`` in place of what has an entry for every parameter's, as views of it.

    Example:
        >>> layout = Layout(("w", "b"), (torch.Size([2, 1]), torch.Size([1])))
        >>> state = {"residual": torch.ones(3), "left": torch.ones(2), "directions.w": torch.ones(1)}
        >>> {name: tuple(tensor.shape) for name, tensor in by_parameter(state, layout).items()}
        {'residual.w': (2, 1), 'residual.b': (1,), 'left': (2,), 'directions.w': (1,)}
    """
    found: dict[str, Tensor] = {}
    for kind, tensor in state.items():
        if tensor.shape == (layout.numel,) and tensor.dtype in (torch.float32, torch.bfloat16):
            found |= {f"{kind}.{name}": view for name, view in layout.unflatten(tensor).items()}
        else:
            found[kind] = tensor
    return found


def owner(name: str) -> str:
    """Which parameter a tensor of the state belongs to; empty if it is bound to a channel as a whole.

    Example:
        >>> owner("memory.residual.layers.0.weight"), owner("exchange.directions.w.#0"), owner("exchange.left.#0")
        ('layers.0.weight', 'w', '')
    """
    rest = name.split(".", 2)[2]
    return rest.rpartition("#")[0].removesuffix(".") if "#" in rest else rest


def _states(channel: Channel) -> dict[str, State]:
    return {
        "memory": channel.memory, "update": channel.update, "exchange": channel.exchange, "rounding": channel.rounding,
    }  # fmt: skip


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Of what does not wait to be applied; a parameter without entries may be in no channel."""
    named = tensors.items()
    return {name: tensor.shape for name, tensor in named if tensor.numel() and not name.startswith("pending.")}
