"""The entrance: one function for both sides."""

from typing import overload

from thinwire.errors import ConfigError
from thinwire.stores import Store
from thinwire.weights.follower import WeightFollower
from thinwire.weights.layout import Named
from thinwire.weights.publisher import WeightPublisher


@overload
def sync_weights(
    weights: Named, *, to: Store, name: str = ..., snapshot_every: int = ..., keep_snapshots: int = ...
) -> WeightPublisher:
    """The trainer's side."""
    ...


@overload
def sync_weights(weights: Named, *, of: Store, name: str = ..., heal: bool = ...) -> WeightFollower:
    """A worker's side."""
    ...


def sync_weights(
    weights: Named,
    *,
    to: Store | None = None,
    of: Store | None = None,
    name: str = "weights",
    snapshot_every: int = 50,
    keep_snapshots: int = 2,
    heal: bool = True,
) -> WeightPublisher | WeightFollower:
    """Bit-exact weights at inference workers for about the bytes of what changed: a trainer's publisher, or a follower.

    Args:
        weights: a model, or tensors by name; bf16, f16 and f32 are coded well, other types plainly.
        to: the store that a trainer publishes to, by ``publish()``.
        of: the store that a worker reads from, by ``follow()``.
        name: of the folder in the store.
        snapshot_every: of a publisher: updates from one snapshot to the next.
        keep_snapshots: of a publisher: older ones are deleted, and the updates before them.
        heal: of a follower: load the last snapshot where updates cannot be applied, and say so.

    Raises:
        ConfigError: not one of ``to`` and ``of``, or an argument that is not allowed.

    Example:
        >>> import tempfile, thinwire, torch
        >>> from thinwire.stores import FolderStore
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trained, served = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        ...     publisher = thinwire.sync_weights(trained, to=FolderStore(folder))  # in the trainer
        ...     follower = thinwire.sync_weights(served, of=FolderStore(folder))  # in each worker
        ...     publisher.publish().step, follower.follow().step, torch.equal(trained.weight, served.weight)
        (1, 1, True)
    """
    if to is not None and of is None:
        return WeightPublisher(weights, to, name=name, snapshot_every=snapshot_every, keep_snapshots=keep_snapshots)
    if of is not None and to is None:
        return WeightFollower(weights, of, name=name, heal=heal)
    raise ConfigError("give one store: to=... where weights are published, of=... where they are followed")
