"""An all-gather of weights that are compressed, or of what they have changed by since the last one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from thinwire.distributed.buckets import BucketChannels
from thinwire.distributed.sharded.sharded_model import ShardedModel
from thinwire.distributed.shards.row import Row, Rows
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError, NumericsError
from thinwire.kernels.flat.finite import is_finite
from thinwire.memory.sender import first_nonfinite
from thinwire.payloads import Dense
from thinwire.random import Key
from thinwire.steps import all_gather
from thinwire.wire import encode
from thinwire.worker.parameters import local_part


@dataclass(slots=True, eq=False)
class CompressedGather:
    """FSDP2's all-gather of one layer's weights: all processes use what the messages say, of their own shard too.

    So all compute with the same weights, while each process's optimizer goes on with its own shard as it is. With
    differences a process sends what its shard differs by from what the others have of it; so what one message leaves
    out is in the next, and weights that have not changed are not sent again.

    Args:
        layer: its name, which addresses its randomness.
        model: whose parameters tell when they were written.
        rows: how it is laid out.
        buckets: the method, and what is sent in full; None: weights are sent by FSDP2 as they are.
        transport: to the processes that it is sharded over.
        key: the seed's.
        by_difference: whether differences are sent.
    """

    layer: str
    model: ShardedModel
    rows: Rows
    buckets: BucketChannels | None
    transport: Transport
    key: Key
    by_difference: bool
    message_bytes: int = 0
    """Bytes handed to the exchange so far, encoded."""
    references: list[Tensor] = field(default_factory=list)
    """What all have of each process's shard, where differences are sent."""
    num_versions: int = 0
    """How often other weights than before were sent."""
    _written: tuple[int, ...] | None = None
    _is_checked: bool = False

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for FSDP2's own tensors."""
        return torch.empty(*size, dtype=dtype, device=device)

    @torch.no_grad()
    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, async_op: bool = False
    ) -> "dist.Work | None":
        """Write all processes' weights, as all decode them."""
        if not self._is_checked:
            self._check(input_tensor, group)
        if self.buckets is None:
            work: dist.Work | None = dist.all_gather_into_tensor(output_tensor, input_tensor, group, async_op)
            return work
        row, versions = self.rows.all(self.buckets, input_tensor.device), self._versions()
        is_known, self._written = self._written == versions, versions
        self.num_versions += not is_known
        x = row.ordered(input_tensor)
        vectors = self._differing(row, x, is_known) if self.by_difference else self._sent(row, x)
        for vector, place in zip(vectors, output_tensor.view(self.transport.size, -1), strict=True):
            row.spread(vector, place)
        return None

    def tensors(self, device: torch.device) -> dict[str, Tensor]:
        """What all have of all shards, by the parameter's name."""
        if self.buckets is None:
            return {}
        row = self.rows.all(self.buckets, device)
        return {
            f"weights.reference.{rank}.{name}": part
            for rank, reference in enumerate(self.references)
            for name, part in row.named(reference).items()
        }

    def read(self, tensors: dict[str, Tensor], device: torch.device) -> list[Tensor]:
        """What :meth:`tensors` gave, which is taken out of ``tensors``, for :meth:`take`; nothing else changes.

        Raises:
            ConfigError: it is of another model, or of some processes only.
        """
        if self.buckets is None:
            return []
        row = self.rows.all(self.buckets, device)
        found = [row.taken(tensors, f"weights.reference.{rank}.") for rank in range(self.transport.size)]
        references = [each for each in found if each is not None]
        if references and len(references) < len(found):
            raise ConfigError(f"the saved state has the layer {self.layer!r} of some processes only")
        return references

    def take(self, references: list[Tensor], num_versions: int, is_known: bool, message_bytes: int) -> None:
        """Go on from what :meth:`read` found.

        Args:
            references: what it found.
            num_versions: as it was.
            is_known: whether the weights, which were loaded before, are those that were last sent.
            message_bytes: as it was.
        """
        self.references, self.num_versions, self.message_bytes = references, num_versions, message_bytes
        self._written = self._versions() if is_known else None

    @property
    def is_known(self) -> bool:
        """Whether the weights are those that were last sent."""
        return self._written == self._versions()

    def _differing(self, row: Row, x: Tensor, is_known: bool) -> list[Tensor]:
        if not self.references:
            self.references = self._gather(row, encode(Dense(x)))
        elif not is_known:
            x -= self.references[self.transport.rank]
            for reference, each in zip(self.references, self._sent(row, x), strict=True):
                reference += each
        return self.references

    def _sent(self, row: Row, x: Tensor) -> list[Tensor]:
        # While weights are as they were, forward and backward have the same message.
        key = self.key.fold("gather", self.layer, self.num_versions, "rank", self.transport.rank)
        # Who raised here would leave the others waiting.
        fit = is_finite(x)
        return self._gather(
            row, encode(row.method.compressor.compress(x, key, row.segments) if fit else first_nonfinite(x))
        )

    def _gather(self, row: Row, message: Tensor) -> list[Tensor]:
        def vectors(messages: Sequence[Tensor]) -> list[Tensor]:
            return [payload.to_dense() for payload in row.reader.parts(messages)]

        self.message_bytes += message.numel()
        found: list[Tensor] = self.transport.run(all_gather(message, vectors, row.max_num_bytes))
        if not all(map(is_finite, found)):
            raise NumericsError(
                f"NaN or inf in the weights of the layer {self.layer!r}; lower the learning rate, clip gradients, or "
                "look for bad input data"
            )
        return found

    def _versions(self) -> tuple[int, ...]:
        params = [self.model.params[name] for name in self.rows.names]
        return tuple(param._version + local_part(param.detach())._version for param in params)

    def _check(self, input_tensor: Tensor, group: dist.ProcessGroup) -> None:
        if not input_tensor.dtype.is_floating_point:
            raise ConfigError(
                f"FSDP2 sends the layer {self.layer!r} as bytes, since its parameters have several dtypes; give it one"
            )
        if dist.get_world_size(group) != self.transport.size:
            raise ConfigError("reshard_after_forward=<number> gathers over other processes; give True or False")
        self.rows.check_order(input_tensor)
        self._is_checked = True
