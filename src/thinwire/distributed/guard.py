"""Finds replicas that have silently come apart, and stops them or brings them together again."""

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import tensor_of
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError, DivergenceError
from thinwire.kernels.crc32c import crc32c
from thinwire.staging import each_on_host

_NUM_BYTES = 8
"""Of what stands for all tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaGuard:
    """Compare, every now and then, what should be equal bit for bit on all processes.

    Faulty memory, a compiler that differs, or a model that one process has changed make replicas drift apart without
    an error. A comparison is a pass over the tensors at about the speed of memory, and 8 bytes to each process; they
    are not in any count.

    Args:
        every: training steps between comparisons.
        on_difference: ``"stop"``: every process raises, at the same step. ``"resync"``: all take the values of
            process 0, and a warning names what differed.

    Raises:
        ConfigError: ``every`` below 1, or another ``on_difference``.
    """

    every: int = 100
    on_difference: Literal["stop", "resync"] = "stop"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"replicas were to be compared every {self.every} steps; give 1 or more")
        if self.on_difference not in ("stop", "resync"):
            raise ConfigError(f"on_difference = {self.on_difference!r} was given; it is 'stop' or 'resync'")


class Replicas(Protocol):
    """What should be the same on all processes."""

    def named(self) -> Mapping[str, Tensor]:
        """The tensors that are compared, as they are now; the same names in the same order on every process."""
        ...

    def take_over(self, transport: Transport) -> None:
        """Make everything that should be the same equal to process 0's; called on every process."""
        ...


@dataclass(slots=True)
class GuardedReplicas:
    """A guard at work.

    Args:
        guard: when to compare, and what to do then.
        transport: connects the processes that hold replicas.
        replicas: what is compared.
    """

    guard: ReplicaGuard
    transport: Transport
    replicas: Replicas
    num_resyncs: int = field(init=False, default=0)
    """How often the values of process 0 were taken."""
    _lasted: bool = field(init=False, default=True)

    def after_step(self, step: int) -> None:
        """Compare if ``step``, the number of steps made, says so; every process must call it at the same steps.

        Raises:
            DivergenceError: the replicas differ and the guard stops, or they are not of one model.

        Warns:
            UserWarning: they differed, and have the values of process 0 from now on.
        """
        if step % self.guard.every:
            return
        named = self.replicas.named()
        labels, hashes = _label_hash(named), tensor_hashes(named.values())
        shared = self.transport.share_bytes(_short_hash(labels.numpy().tobytes() + hashes.numpy().tobytes()))
        if all(torch.equal(other, shared[0]) for other in shared):
            self._lasted = True
            return
        found = self._describe(list(named), labels, hashes, step)
        if self.guard.on_difference == "stop":
            raise DivergenceError(
                f"{found}. Start again from a checkpoint, with all processes alike; ReplicaGuard(on_difference="
                '"resync") would go on with the values of process 0'
            )
        again = "" if self._lasted else "; so it was at the comparison before: the cause remains"
        self.replicas.take_over(self.transport)
        self.num_resyncs += 1
        self._lasted = False
        warnings.warn(f"{found}; all have taken the values of process 0{again}", stacklevel=2)

    def _describe(self, names: Sequence[str], labels: Tensor, hashes: Tensor, step: int) -> str:
        """Where the replicas differ: a second round, of one hash a tensor."""
        everyone = self.transport.share_bytes(torch.cat([labels, hashes.view(torch.uint8)]))
        if any(not torch.equal(other[:_NUM_BYTES], labels) for other in everyone):
            raise DivergenceError(
                f"at step {step} processes hold tensors of different names, shapes or dtypes; train one model on all"
            )
        table = torch.stack([other[_NUM_BYTES:].view(torch.int32) for other in everyone])
        differs = table != table[0]
        first = int(differs.any(dim=0).nonzero()[0])
        ranks = differs[:, first].nonzero().view(-1).tolist()
        count = int(differs.any(dim=0).sum())
        return (
            f"replicas have come apart, found at step {step}: {names[first]!r} of process"
            f"{'es' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} is not that of process 0 "
            f"({count} of {len(names)} tensors differ)"
        )


def take_first(transport: Transport, tensors: Sequence[Tensor]) -> None:
    """Overwrite the tensors with those of process 0.

    Raises:
        DivergenceError: on every process, if they do not hold tensors of the same shapes and dtypes; nothing is
            changed then.
    """
    kinds = transport.share_bytes(_label_hash({str(place): tensor for place, tensor in enumerate(tensors)}))
    if not all(torch.equal(other, kinds[0]) for other in kinds):
        raise DivergenceError(
            "processes cannot take the values of process 0: their optimizers hold different tensors, or results "
            "wait to be applied on some only. Start again from a checkpoint, with all processes alike"
        )
    transport.broadcast_(tensors)


def tensor_hashes(tensors: Iterable[Tensor]) -> Tensor:
    """The CRC-32C of each tensor's bits, in the order of its indices whatever its memory format is: int32 ``[n]``.

    Bits count, not values: 0.0 is not -0.0, and two NaN are the same if their bits are.

    Example:
        >>> table = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> one, other, turned = tensor_hashes([table, table.T.contiguous().T, table.T]).tolist()
        >>> one == other, one == turned
        (True, False)
    """
    found = [crc32c(values.view(-1).view(torch.uint8)) for values in each_on_host(tensors)]
    return tensor_of(np.array(found, np.uint32).view(np.int32))


def _label_hash(named: Mapping[str, Tensor]) -> Tensor:
    """Stands for names, shapes and dtypes."""
    return _short_hash(repr([(name, tuple(tensor.shape), tensor.dtype) for name, tensor in named.items()]).encode())


def _short_hash(data: bytes) -> Tensor:
    """uint8 ``[8]``."""
    return torch.frombuffer(bytearray(hashlib.blake2b(data, digest_size=_NUM_BYTES).digest()), dtype=torch.uint8)
