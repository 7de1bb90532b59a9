"""What takes over the gradients of a sharded model: the handle of ``compress_fsdp``."""

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from thinwire.distributed.bucket_exchange import GradScaler, enabled
from thinwire.distributed.buckets import BucketChannels, parameter_of
from thinwire.distributed.dense_policy import DensePolicy
from thinwire.distributed.gradient_state import GradientState
from thinwire.distributed.guard import GuardedReplicas
from thinwire.distributed.handle_options import HandleOptions
from thinwire.distributed.interrupts import Interrupts
from thinwire.distributed.lane import Lane
from thinwire.distributed.pipeline import Pipeline
from thinwire.distributed.sharded.backward import Backward
from thinwire.distributed.sharded.exchange import ShardExchange
from thinwire.distributed.sharded.sharded_model import ShardedModel, shared_out
from thinwire.distributed.sharded.taps import Grads, Taps
from thinwire.distributed.starting_point import broadcast_parameters, common_terms
from thinwire.distributed.step_notices import StepNotices, warn_of_scaler
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import GradientAveraging, check_method
from thinwire.network import Traffic
from thinwire.random import Key
from thinwire.worker.exchange_runner import ExchangeRunner
from thinwire.worker.parameters import local_part, model_device
from thinwire.worker.resize import of_known


class ShardedGradients:
    """The gradients of a sharded model, exchanged between its replicas; made by :func:`thinwire.compress_fsdp`.

    Layers are exchanged in the order in which FSDP2 reduces their gradients, while backward goes on. What is remembered
    lies with its shard, and is known by parameter names. It counts what was applied: an exchange counts when an
    optimizer steps, and not at all if the gradients are thrown away, see
    :class:`thinwire.distributed.settling.Settling`. A backward pass in which some replica's gradients are not finite
    leaves every memory as it was: with a ``GradScaler``, which finds it in the gradients, every process skips the
    step; without one every process raises :class:`thinwire.NumericsError`. As a context manager it is closed at the
    end.
    """

    def __init__(
        self, model: ShardedModel, group: dist.ProcessGroup, method: GradientAveraging, policy: DensePolicy,
        scaler: GradScaler | None, options: HandleOptions,
    ) -> None:  # fmt: skip
        more = {"policy": policy, "guard": options.guard}
        terms = common_terms("compress_fsdp", method, options.seed, model.module, more)
        self.transport = Transport(group, options.links, terms, device=model_device(model.trained.values()))
        self.is_closed = False
        """Whether :meth:`close` was called: a backward pass then raises."""
        self.sharded = model
        self.group = group
        """The processes that hold replicas of this process's shard."""
        rank, size = self.transport.rank, self.transport.size
        self._runner = ExchangeRunner(method, rank, size, options.seed, options.layer_report)
        self._looks_for_scaler = scaler is None
        with contextlib.ExitStack() as undo:  # what cannot begin leaves nothing behind
            undo.callback(self.transport.close)
            self._buckets = BucketChannels(
                method, list(model.params), policy.names_for(method, model.module, warns=dist.get_rank() == 0),
                Key(options.seed).fold("fsdp"), rank, size, None, None, self.transport.sums_stay,
            )  # fmt: skip
            self._state = GradientState(self._runner, self._buckets, self.transport)
            _check_fit(self._buckets, model)
            self._exchange = ShardExchange(self._buckets, self._runner, enabled(scaler))
            self._guard = None if options.guard is None else GuardedReplicas(options.guard, self.transport, model)
            broadcast_parameters(self.transport, model.module)
            self._taps = Taps(model, self)
            undo.pop_all()
        self._lane = Lane(model_device(model.trained.values()))
        self._pipeline = Pipeline(self.transport, self._lane)
        self._submitted: list[tuple[set[str], Future[None]]] = []
        self._backward = Backward(self._begin, self._end)
        self._interrupts = Interrupts()
        self.transport.watch(self._interrupts)
        self._notices = StepNotices(self)

    def __enter__(self) -> "ShardedGradients":
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
    def num_steps(self) -> int:
        """Backward passes that counted."""
        return self._runner.num_steps

    @property
    def message_bytes(self) -> int:
        """Bytes this process handed to the exchange so far, encoded."""
        return self._runner.message_bytes

    @property
    def steps_together(self) -> bool:
        """All processes make the same steps."""
        return True

    @property
    def traffic(self) -> Traffic:
        """Bytes that crossed this process's link to its replicas for gradients so far."""
        return self.transport.traffic

    def layer_begins(self) -> None:
        """FSDP2 has reduced the gradients of a layer, the first of a backward pass perhaps."""
        if self.is_closed:
            raise ConfigError(
                "this handle is closed, so that gradients are not averaged over replicas any more; call compress_fsdp "
                "again, or shard the model over the whole mesh to go on without compression"
            )
        self.transport.check()
        self._backward.goes_on()

    def wait_for(self, names: Mapping[str, Tensor]) -> None:
        """A layer that is used twice in one forward pass gets its second gradients."""
        for found, done in self._submitted:
            if not found.isdisjoint(names):
                done.result()
        self._lane.join()

    def take(self, grads: Grads) -> None:
        """A layer's new gradients: they are exchanged from now on, and hold the mean once that is over."""
        trained = self.sharded.trained
        local = {name: local_part(grad) for name, grad in grads.items()}
        partial = not self._taps.is_whole(grads.keys() & trained.keys())
        for names in shared_out(local, self.sharded.params):
            named = {name: local[name] for name in names}
            if any(each.numel() for each in named.values()):
                program = self._exchange.program(named, is_partial=partial)
                self._submitted.append((set(named), self._pipeline.submit(program, self._exchange.finish)))

    def _begin(self) -> None:
        """A backward pass begins: what became of the last one's gradients is known by now."""
        self._interrupts.came()  # what came before this is Python's own matter
        for _, done in self._submitted:  # of one that failed
            done.exception()
        self._submitted = []
        self._exchange.settle()
        self._exchange.forget()
        self._taps.begin()

    @torch.no_grad()
    def _end(self) -> None:
        """FSDP2 has reduced everything."""
        aside = self._taps.end()
        submitted, self._submitted = self._submitted, []
        try:
            for _, done in submitted:
                done.result()
        except BaseException:
            self._exchange.forget()
            raise
        self._lane.join()
        if self._guard is not None:  # parameters have not changed since the step
            self._guard.after_step(self._runner.num_steps)
        spoilt = self._exchange.spoilt
        if self._exchange.scaler is None and self.sharded.any_shard(spoilt is not None):
            self._exchange.forget()
            raise self._exchange.error(spoilt)
        names = {name for found, _ in submitted for name in found}
        named = {name: self.sharded.params[name] for name in names}
        self._exchange.settling.begin(named, are_new=True)
        for name, before in aside.items():
            _add_to(before, self.sharded.params[name])
        self._exchange.hold()
        self._exchange.settling.backward_ended(lambda grads: None, are_views=False)

    def optimizer_stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """Some optimizer of this process has made a step."""
        settling = self._exchange.settling
        if not settling.stepped(optimizer):
            return
        if self._looks_for_scaler:
            warn_of_scaler("compress_fsdp", "compress_fsdp(model, method, scaler=scaler, ...)")
        self._looks_for_scaler = False
        if settling.are_all_written:
            self._exchange.settle()

    def state_dict(self) -> dict[str, Any]:
        """The memory of this process's shard by parameter name, and the counters; it loads with ``weights_only=True``.

        It is each process's own, a file for each; for other meshes there is
        :func:`thinwire.distributed.sharded.dcp_state.dcp_state`. Take it between steps: an exchange whose gradients
        wait to be applied is not in it.
        """
        if self._exchange.settling.are_any_written:
            self._exchange.settle()
        return self._state.saved()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken, on as many processes.

        Raises:
            ConfigError: the state is of another rank, number of replicas, seed, method, model or shard.
        """
        found = self._state.read(saved, self.sharded.params)
        for name, tensor in found.tensors.items():
            own = local_part(self.sharded.params[parameter_of(name)].detach())
            if name.startswith("memory.") and "#" not in name and tensor.shape != own.shape:
                raise ConfigError(
                    f"{name!r} was saved of a shard of {tuple(tensor.shape)}, and here it is {tuple(own.shape)}: the "
                    "model is sharded otherwise; load a checkpoint of dcp_state instead, with load_dcp_state"
                )
        self._exchange.forget()
        self._state.take(found)

    def exchanged(self) -> dict[str, int]:
        """``id()`` of every parameter that takes part, by its name: a checkpoint finds their model by it."""
        return {name: id(param) for name, param in self.sharded.params.items()}

    def load_resized(self, saved: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the states of another number of replicas, where each process has a replica of its own.

        Raises:
            ConfigError: as :meth:`load_state_dict`, or the saved processes' models differ.
        """
        local = [{name: local_part(tensor) for name, tensor in each.items()} for each in models]
        trained = of_known(self.exchanged(), local)
        self.load_state_dict(self._state.resized(saved, trained))

    def close(self) -> None:
        """End the threads and the links; the model can be evaluated, saved and given to another handle.

        A backward pass raises from now on: its gradients would not be averaged.
        """
        self.is_closed = True
        self.transport.close()  # whoever waits in a thread hears of it
        self._pipeline.close()
        self._interrupts.close()
        self._notices.close()
        self._taps.close()


def _check_fit(buckets: BucketChannels, model: ShardedModel) -> None:
    """Every part refuses what it cannot do before training, on each layer's parameters."""
    for layer in model.layers:
        names = [name for name in model.own_of(layer) if model.params[name].requires_grad]
        for group in shared_out(names, model.params):
            ordered = sorted(group, key=lambda name: name in buckets.dense)
            layout = Layout.of({name: local_part(model.params[name].detach()) for name in ordered})
            if layout.numel:
                check_method(buckets.fitted(layout), layout)


def _add_to(before: Tensor, param: torch.nn.Parameter) -> None:
    """Let ``.grad`` be what it was before this backward pass, with what came since."""
    if param.grad is not None:
        local_part(before).add_(local_part(param.grad))
    param.grad = before
