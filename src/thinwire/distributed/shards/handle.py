"""Compressed messages between the shards of a model, and what they leave behind: the handle of ``compress_shards``."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from thinwire.distributed.buckets import BucketChannels
from thinwire.distributed.dense_policy import DensePolicy
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.sharded.sharded_model import ShardedModel
from thinwire.distributed.shards.gather import CompressedGather
from thinwire.distributed.shards.row import Rows
from thinwire.distributed.shards.scatter import CompressedScatter
from thinwire.distributed.starting_point import common_terms
from thinwire.distributed.step_notices import StepNotices
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.methods import GradientAveraging
from thinwire.network import Traffic
from thinwire.random import Key
from thinwire.worker.exchange_runner import check_same
from thinwire.worker.parameters import local_part, model_device


@dataclass(frozen=True, slots=True)
class ShardMethods:
    """What is compressed between shards, and how.

    Args:
        gradients: of pieces of gradients; None: they are reduced in full.
        weights: of weights; None: they are gathered in full.
        by_difference: whether of weights what they have changed by is sent.
        seed: addresses the randomness.
    """

    gradients: GradientAveraging | None
    weights: GradientAveraging | None
    by_difference: bool
    seed: int


class CompressedShards:
    """Reduce-scatter and all-gather of a sharded model, compressed; made by :func:`thinwire.compress_shards`.

    What messages about gradients leave out counts once an optimizer has stepped; if the gradients are thrown away the
    memory is as it was. As a context manager it is closed at the end.
    """

    def __init__(
        self, model: ShardedModel, group: dist.ProcessGroup, methods: ShardMethods, policy: DensePolicy,
        links: LinkOptions | None,
    ) -> None:  # fmt: skip
        self.sharded = model
        self.methods = methods
        more = {"weights": methods.weights, "by_difference": methods.by_difference, "policy": policy}
        names = ", ".join(f"{name} {tuple(param.shape)}" for name, param in model.params.items())
        terms = common_terms("compress_shards", methods.gradients, methods.seed, torch.nn.Module(), more)
        self._device = model_device(model.params.values())
        self.transport = Transport(group, links, terms | {"model": names}, device=self._device)
        with contextlib.ExitStack() as undo:
            undo.callback(self.transport.close)
            key = Key(methods.seed).fold("shards")
            self.scatters: dict[str, CompressedScatter] = {}
            self.gathers: dict[str, CompressedGather] = {}
            grads, weights = (self._buckets(each, policy, key) for each in (methods.gradients, methods.weights))
            for name, layer in model.layers.items():
                rows = Rows(model, name, group)
                if not rows.names:
                    continue
                # It looks at the order of parameters too, which holds for gradients.
                gather = CompressedGather(name, model, rows, weights, self.transport, key, methods.by_difference)
                self.gathers[name] = gather
                _attach(layer.set_custom_all_gather, gather)
                if grads is not None:
                    self.scatters[name] = CompressedScatter(name, rows, grads, self.transport, key)
                    _attach(layer.set_custom_reduce_scatter, _Tap(self, self.scatters[name]))
            undo.pop_all()
        self._task = -1
        self._notices = StepNotices(self)

    def _buckets(self, method: GradientAveraging | None, policy: DensePolicy, key: Key) -> BucketChannels | None:
        if method is None:
            return None
        names = policy.names_for(method, self.sharded.module, warns=dist.get_rank() == 0)
        rank, size = self.transport.rank, self.transport.size
        return BucketChannels(method, list(self.sharded.params), names, key, rank, size, None)

    def __enter__(self) -> "CompressedShards":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; the other processes hear of an error that ends the block, and do not wait."""
        if error is not None:
            self.transport.abort_for(error)
        self.close()

    @property
    def message_bytes(self) -> tuple[int, int]:
        """Bytes this process handed to the exchange so far, encoded: about gradients, and about weights."""
        about_gradients = sum(each.message_bytes for each in self.scatters.values())
        return about_gradients, sum(each.message_bytes for each in self.gathers.values())

    @property
    def traffic(self) -> Traffic:
        """Bytes that crossed this process's link to the other shards so far, for what is compressed."""
        return self.transport.traffic

    def reduces(self) -> None:
        """FSDP2 reduces a layer's gradients, of a new backward pass perhaps."""
        self.transport.check()
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._task = task
            self._settle()

    def optimizer_stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """Some optimizer of this process has made a step."""
        held = {id(param) for group in optimizer.param_groups for param in group["params"] if param.grad is not None}
        for scatter in self.scatters.values():
            if any(id(self.sharded.params[name]) in held for name in scatter.rows.names):
                scatter.accept()

    def _settle(self) -> None:
        """Of what no optimizer has taken, gradients that are still there will be; others were thrown away."""
        kept: dict[str, bool] = {}
        for layer, scatter in self.scatters.items():
            grads = [self.sharded.params[name].grad for name in scatter.rows.names]
            parts = [local_part(grad) for grad in grads if grad is not None]
            if not parts or any(part.numel() for part in parts):
                kept[layer] = any(bool(part.any()) for part in parts)
        for layer, scatter in self.scatters.items():
            # Of a layer of which this process owns nothing it remembers the others' pieces, and no gradient can tell.
            if kept.get(layer, any(kept.values())):
                scatter.accept()
            else:
                scatter.forget()

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, by parameter name, and the counters; it loads with ``weights_only=True``.

        It is each process's own, and fits as many processes. Take it between steps.
        """
        gathers = self.gathers.values()
        counters = {
            **self._identity(),
            "calls": [each.num_calls for each in self.scatters.values()],
            "versions": [[each.num_versions, each.is_known] for each in gathers],
            "message_bytes": [[each.message_bytes for each in kind] for kind in (self.scatters.values(), gathers)],
            "link": [self.traffic.bytes_sent, self.traffic.bytes_received],
        }
        kinds: list[CompressedScatter | CompressedGather] = [*self.scatters.values(), *gathers]
        tensors = {name: tensor for each in kinds for name, tensor in each.tensors(self._device).items()}
        return {"counters": counters, "tensors": {name: tensor.clone() for name, tensor in tensors.items()}}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; load model and optimizer before.

        Raises:
            ConfigError: the state is of another rank, number of shards, seed, method or model; nothing is changed.
        """
        counters, tensors = saved["counters"], dict(saved["tensors"])
        check_same(counters, self._identity(), "handle")
        if len(counters["calls"]) != len(self.scatters):
            raise ConfigError(
                f"the saved state is of another model: it has {len(counters['calls'])} layers that are sharded, this "
                f"one {len(self.scatters)}"
            )
        memories = [scatter.read(tensors, self._device) for scatter in self.scatters.values()]
        references = [gather.read(tensors, self._device) for gather in self.gathers.values()]
        if tensors:
            raise ConfigError(f"the saved state is of another model: this one has no {', '.join(sorted(tensors)[:3])}")
        scattered, gathered = counters["message_bytes"]
        for scatter, memory, num_calls, num_bytes in zip(
            self.scatters.values(), memories, counters["calls"], scattered, strict=True
        ):
            scatter.take(memory, num_calls, num_bytes)
        for gather, reference, (num_versions, is_known), num_bytes in zip(
            self.gathers.values(), references, counters["versions"], gathered, strict=True
        ):
            gather.take(reference, num_versions, is_known, num_bytes)
        self.transport.traffic = Traffic(*counters["link"])

    def _identity(self) -> dict[str, Any]:
        given = self.methods
        return {
            "gradients": repr(given.gradients), "weights": repr(given.weights), "by_difference": given.by_difference,
            "seed": given.seed, "rank": self.transport.rank, "size": self.transport.size,
        }  # fmt: skip

    def close(self) -> None:
        """End the links; a forward or backward pass raises from now on."""
        self._notices.close()
        self.transport.close()


class _Tap:
    """Tells the handle before a layer's gradients are reduced."""

    def __init__(self, handle: CompressedShards, scatter: CompressedScatter) -> None:
        self._handle, self._scatter = handle, scatter
        self.allocate = scatter.allocate

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: Any, async_op: bool = False
    ) -> None:
        self._handle.reduces()
        self._scatter(output_tensor, input_tensor, group, op, async_op)


def _attach(setter: Any, comm: object) -> None:
    try:
        setter(comm)
    except ValueError as error:
        raise ConfigError(
            f"FSDP2 gives a layer whose parameters lie on several meshes no collective of its own ({error}); shard "
            "these in layers of their own"
        ) from error
