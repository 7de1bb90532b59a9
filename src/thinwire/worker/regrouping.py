"""What workers remember, when parameters join and leave the training."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import Method
from thinwire.random import Key
from thinwire.worker.fragments import make_channels
from thinwire.worker.keeper import Keeper, owner
from thinwire.worker.parameters import local_part

_OWED = ("memory.", "exchange.")
"""What a parameter finds again that comes back."""


def group(method: Method, named: Mapping[str, Tensor], rank: int, size: int, key: Key) -> Keeper:
    """Parameters that begin together.

    Raises:
        ConfigError: a part of the method does not fit them.
    """
    local = {name: local_part(param) for name, param in named.items()}
    found = Keeper(Layout.of(local))
    found.add(make_channels(method, local, rank, size, key))
    return found


@torch.no_grad()
def regroup(
    before: Keeper, named: Mapping[str, Tensor], begins: Mapping[str, Tensor], replaced: Collection[str], key: Key,
    *, stands: bool,
) -> Keeper:  # fmt: skip
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
    bound = find_bound(before)
    if bound is not None:
        raise ConfigError(
            f"parameters were frozen, unfrozen, added or replaced, or have lost or got a gradient, but {first.method} "
            f"keeps {bound!r} by the index of each parameter in one vector; make a new handle after such a change, or "
            "take another method"
        )
    joined = {name: local_part(named[name]) for name in begins if name in named}
    own = {name: tensor.clone() for name, tensor in joined.items()}
    for name, tensor in joined.items():
        tensor.copy_(begins[name])
    after = group(first.method, named, first.rank, first.size, key)
    for name, tensor in joined.items():
        tensor.copy_(own[name])
    kept = {name: tensor for name, tensor in before.tensors().items() if owner(name) not in replaced}
    after.fill({name: kept[name] for name in kept if owner(name) not in joined or name.startswith(_OWED)})
    owed = _OWED if stands else (*_OWED, "update.")
    after.waiting = {
        name: tensor.clone() for name, tensor in kept.items() if owner(name) not in named and name.startswith(owed)
    }
    return after


def find_bound(keeper: Keeper) -> str | None:
    """What is kept by the index of parameters in the vector, if anything is, so that none can join or leave."""
    return next((name for name in (*keeper.waiting, *keeper.live()) if not owner(name)), None)
