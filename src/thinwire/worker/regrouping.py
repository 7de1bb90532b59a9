"""What workers remember, when parameters join and leave the training."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import Method
from thinwire.random import Key
from thinwire.worker.channel import Channel, make_channels
from thinwire.worker.parameters import local_part
from thinwire.worker.state import load_tensors, named_tensors

_OWED = ("memory.", "exchange.")
"""What a parameter finds again that comes back."""


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """The parameters that are exchanged, and what is remembered of them and of those that were.

    Args:
        layout: names and shapes of those that are exchanged.
        channels: their parts.
        parked: what is owed to parameters that are not exchanged now, under the names of the state.
    """

    layout: Layout
    channels: list[Channel]
    parked: dict[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name."""
        return self.parked | named_tensors(self.channels, self.layout)

    def bound(self) -> str | None:
        """What is kept by the index of parameters in the vector, if anything is, so that none can join or leave."""
        lasting = (name for name in self.tensors() if not name.startswith("pending."))
        return next((name for name in lasting if not owner(name)), None)

    def known(self) -> set[str]:
        """The parameters whose common values are known here: they need not say where they begin."""
        return {*self.layout.names, *(owner(name) for name in self.parked if name.startswith("update."))}


def group(method: Method, named: Mapping[str, Tensor], rank: int, size: int, key: Key) -> Grouped:
    """Parameters that begin together.

    Raises:
        ConfigError: a part of the method does not fit them.
    """
    local = {name: local_part(param) for name, param in named.items()}
    return Grouped(Layout.of(local), make_channels(method, local, rank, size, key), {})


@torch.no_grad()
def regroup(
    before: Grouped, named: Mapping[str, Tensor], begins: Mapping[str, Tensor], replaced: Collection[str], key: Key,
    *, stands: bool,
) -> Grouped:  # fmt: skip
    """The same for other parameters.

    Those that stay keep what they have. Those that leave are owed what they were, should they come back. Those that
    join, or come back, begin as at the start of a training, at the values ``begins``, whatever they hold by now.

    Args:
        before: what there is.
        named: what is exchanged from now on.
        begins: the common values of those that join.
        replaced: names that belong to other parameters than before, to which nothing is owed.
        key: that of :func:`group`.
        stands: whether the parameters are at their common point, which need not be kept then for those that leave.

    Raises:
        ConfigError: the method keeps something that is bound to the index of parameters in the vector.
    """
    first = before.channels[0]
    bound = before.bound()
    if bound is not None:
        raise ConfigError(
            f"parameters were frozen, unfrozen, added or replaced, or have lost or got a gradient, but {first.method} "
            f"keeps {bound!r} by the index of each parameter in one vector; make a new handle after such a change, or "
            "take another method"
        )
    kept = {name: tensor for name, tensor in before.tensors().items() if owner(name) not in replaced}
    joined = {name: local_part(named[name]) for name in begins if name in named}
    own = {name: tensor.clone() for name, tensor in joined.items()}
    for name, tensor in joined.items():
        tensor.copy_(begins[name])
    after = group(first.method, named, first.rank, first.size, key)
    for name, tensor in joined.items():
        tensor.copy_(own[name])
    fresh = named_tensors(after.channels, after.layout)
    found = {
        name: kept[name] if name in kept and (owner(name) not in joined or name.startswith(_OWED)) else tensor
        for name, tensor in fresh.items()
    }
    load_tensors(after.channels, after.layout, found, [None] * len(after.channels))
    owed = _OWED if stands else (*_OWED, "update.")
    parked = {
        name: tensor.clone() for name, tensor in kept.items() if owner(name) not in named and name.startswith(owed)
    }
    return Grouped(after.layout, after.channels, parked)


def owner(name: str) -> str:
    """Which parameter a tensor of the state belongs to; empty if it is bound to the segments of the vector.

    Example:
        >>> owner("memory.residual.layers.0.weight"), owner("exchange.directions.w.#0"), owner("exchange.left.#0")
        ('layers.0.weight', 'w', '')
    """
    rest = name.split(".", 2)[2]
    return rest.rpartition("#")[0].removesuffix(".") if "#" in rest else rest
