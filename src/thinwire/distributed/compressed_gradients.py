"""What takes over the gradients of a DistributedDataParallel: the handle of its communication hook."""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from thinwire.distributed.backward_end import BackwardEnd, is_inside_backward
from thinwire.distributed.bucket_exchange import BucketExchange, GradScaler, enabled
from thinwire.distributed.buckets import BucketChannels, BucketSizes
from thinwire.distributed.dense_policy import DensePolicy
from thinwire.distributed.dense_watch import DenseWatch
from thinwire.distributed.gradient_state import GradientState
from thinwire.distributed.handle_options import HandleOptions
from thinwire.distributed.hooked_model import BeforeForward, Detached
from thinwire.distributed.interrupts import Interrupts
from thinwire.distributed.lane import Lane
from thinwire.distributed.link_speed import measure_link
from thinwire.distributed.pipeline import Pipeline
from thinwire.distributed.replicas import guard_module
from thinwire.distributed.starting_point import broadcast_parameters, common_terms
from thinwire.distributed.step_notices import StepNotices, warn_of_scaler
from thinwire.distributed.trained_model import TrainedModel
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError, WorkerError
from thinwire.methods import GradientAveraging
from thinwire.network import Traffic
from thinwire.random import Key
from thinwire.worker.exchange_runner import ExchangeRunner
from thinwire.worker.parameters import model_device, named_parameters
from thinwire.worker.resize import of_known
from thinwire.worker.step_times import StepClock, StepTimes, median_times


class CompressedGradients:
    """The state of a hook, made by :func:`thinwire.compress_ddp`; as a context manager it is closed at the end.

    Buckets are exchanged in the order in which backward fills them, while it goes on. The memory is known by
    parameter names, so that DDP may rebuild its buckets. It counts what was applied: an exchange counts when an
    optimizer steps, and not at all if the gradients are thrown away, see
    :class:`thinwire.distributed.settling.Settling`. A step in which some worker's gradients are not finite leaves every
    worker's memory and key as they were: with a ``GradScaler``, which finds it in the gradients that DDP hands out,
    every worker skips the step; without one every worker raises :class:`thinwire.NumericsError`.
    """

    def __init__(
        self, model: DistributedDataParallel, method: GradientAveraging, policy: DensePolicy,
        scaler: GradScaler | None, warn_if_slower: bool, options: HandleOptions,
    ) -> None:  # fmt: skip
        more = {"policy": policy, "guard": (guard := options.guard), "warn_if_slower": warn_if_slower}
        terms = common_terms("compress_ddp", method, options.seed, model.module, more)
        device = model_device(param for param in model.module.parameters() if param.requires_grad)
        self.transport = Transport(model.process_group, options.links, terms, device=device)
        self.is_closed = False
        """Whether :meth:`close` was called: a backward pass then raises."""
        rank, size = self.transport.rank, self.transport.size
        self._runner = ExchangeRunner(method, rank, size, options.seed, options.layer_report)
        self._looks_for_scaler = scaler is None
        self._clock = self.transport.clock = StepClock() if options.profile else None
        with contextlib.ExitStack() as undo:  # what cannot begin leaves nothing behind
            undo.callback(self.transport.close)
            self._buckets = BucketChannels(
                method, list(named_parameters(model.module)), policy.names_for(method, model.module, warns=rank == 0),
                Key(options.seed).fold("ddp"), rank, size, self._clock, BucketSizes.of(model), self.transport.sums_stay,
            )  # fmt: skip
            self._state = GradientState(self._runner, self._buckets, self.transport)
            guarded = None if guard is None else guard_module(guard, self.transport, model.module)
            self._exchange = BucketExchange(self._buckets, self._runner, enabled(scaler), guarded, self._clock)
            broadcast_parameters(self.transport, model.module)
            self._trained = TrainedModel(model, self.transport, policy, self._buckets)
            if warn_if_slower and size > 1:
                network = measure_link(self.transport, model.process_group, device)
                self._exchange.watch = DenseWatch(network, size, rank == 0, self.transport.share, device=device)
            undo.pop_all()
        # A clock cannot tell the work on one bucket from waiting for another.
        self._lane = Lane(device)
        self._pipeline = Pipeline(self.transport, self._lane, ahead=not options.profile)
        self._is_under_way = False
        self._end = BackwardEnd(self._backward_ended)
        self._interrupts = Interrupts()
        self.transport.watch(self._interrupts)
        self._notices = StepNotices(self)
        self._forward_hook = model.register_forward_pre_hook(BeforeForward(self))

    def __reduce__(self) -> tuple[type[Detached], tuple[()]]:
        """A copy of the model has no handle."""
        return Detached, ()

    def __enter__(self) -> "CompressedGradients":
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
        """Steps that counted."""
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
        """Bytes that crossed this process's link for gradients so far."""
        return self.transport.traffic

    @property
    def times(self) -> StepTimes:
        """Where the seconds of a step went: medians over the last ones.

        Raises:
            ConfigError: ``profile`` was not asked for.
        """
        return median_times(self._clock)

    def before_forward(self, model: nn.Module) -> None:
        """Before a forward pass: what was thrown away is gone by now, and what is trained is asked again.

        Raises:
            ConfigError: the processes do not train the same parameters from now on.
        """
        own = self._trained.model
        if own is None or model is not own or not torch.is_grad_enabled():
            return
        settling = self._exchange.settling
        settling.look()
        if settling.are_all_written:  # by the script itself
            self._exchange.settle()
        if not own.require_backward_grad_sync:
            return
        self._exchange.complete()
        if self._is_under_way:  # an error has ended the backward pass before its last bucket
            self._exchange.forget()
        self._is_under_way = False
        if self._trained.differs(own):
            self._exchange.settle()
            self._trained.go_on_with_others(own, self, self.num_steps + 1)
        self._trained.take_loaded(own.module)

    def exchange(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """Begin the exchange of a bucket; the future's value is its buffer with the mean in it.

        What goes wrong is raised at the end of the backward pass; outside of one, by the future.
        """
        promise = self._lane.promise()
        # Asked for here: the bucket is DDP's, and only lent.
        params, grads, buffer, is_last = bucket.parameters(), bucket.gradients(), bucket.buffer(), bucket.is_last()
        is_inside = is_inside_backward()
        if is_inside and is_last:
            self._end.expect()
        done: Future[Tensor] = Future()
        try:
            self._check_open()
            done = self._submit(params, grads, buffer, is_last, is_inside)
        except Exception as error:  # it has to come out of the end of backward, like those of the thread
            done.set_exception(error)
        done.add_done_callback(functools.partial(self._keep, promise, buffer, is_inside))
        return promise

    def _submit(
        self, params: Sequence[Tensor], grads: Sequence[Tensor], buffer: Tensor, is_last: bool, is_inside: bool
    ) -> "Future[Tensor]":
        self._interrupts.came()  # what came before this is Python's own matter
        if not self._is_under_way:
            self._exchange.settling.check_complete()
            self._exchange.settle()
        self._is_under_way = not is_last
        held = {self._trained.name_of(param): param for param in params}
        self._exchange.settling.begin(held)
        handed_s = self._exchange.watch.hand_over() if self._exchange.watch else 0.0
        keeps = is_inside and self._trained.keeps(params)  # outside of backward nobody would write the means
        program = self._exchange.program(dict(zip(held, grads, strict=True)), held, keeps=keeps)
        return self._pipeline.submit(program, functools.partial(self._exchange.finish, buffer, is_last, handed_s))

    def _check_open(self) -> None:
        if self.is_closed:
            raise ConfigError(
                "this handle is closed, so that gradients are not exchanged any more; call compress_ddp again, or "
                "wrap the model in a new DistributedDataParallel to go on without compression"
            )
        self.transport.check()

    def _keep(
        self, promise: "torch.futures.Future[Tensor]", buffer: Tensor, is_inside: bool, done: "Future[Tensor]"
    ) -> None:
        error = done.exception()
        if error is not None:
            # Ctrl-C itself comes as soon as Python goes on.
            shown = error if isinstance(error, Exception) else WorkerError("the exchange was interrupted")
            if not is_inside:
                promise.set_exception(shown)  # type: ignore[arg-type]
                return
            self._end.fail(shown)
        promise.set_result(buffer)

    def _backward_ended(self, went_well: bool) -> None:
        self._lane.join()
        model = self._trained.model
        if went_well and model is not None:
            self._exchange.settling.backward_ended(self._exchange.write_kept, are_views=model.gradient_as_bucket_view)
        else:
            self._exchange.forget()

    def optimizer_stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """Some optimizer of this process has made a step."""
        settling = self._exchange.settling
        if not settling.stepped(optimizer):
            return
        if self._looks_for_scaler:
            warn_of_scaler("compress_ddp", "compress_ddp(model, method, scaler=scaler)")
        self._looks_for_scaler = False
        if settling.are_all_written:
            self._exchange.settle()

    def state_dict(self) -> dict[str, Any]:
        """The memory of every parameter by its name, which parameters are in which of DDP's buckets, and the counters.

        It loads with ``weights_only=True``. Take it between steps: an exchange whose gradients wait to be applied is
        not in it.
        """
        if self._exchange.settling.are_any_written:
            self._exchange.settle()
        return self._state.saved()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            ConfigError: the state is of another rank, number of processes, seed, method or model.
        """
        found = self._state.read(saved, self._trained.names)
        self._exchange.forget()
        self._state.take(found)

    def exchanged(self) -> dict[str, int]:
        """``id()`` of every parameter that takes part, by its name: a checkpoint finds their model by it."""
        return self._trained.ids()

    def load_resized(self, saved: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the states of another number of processes; :func:`thinwire.worker.resize.resized` has the rule.

        Raises:
            ConfigError: as :meth:`load_state_dict`, or the saved processes' models differ.
        """
        trained = of_known(self._trained.ids(), models)
        self.load_state_dict(self._state.resized(saved, trained))

    def close(self) -> None:
        """End the threads and the links; the model can be evaluated, copied and saved, and hooked anew.

        A backward pass raises from now on: its gradients would not be exchanged.
        """
        self.is_closed = True
        self.transport.close()  # whoever waits in a thread hears of it
        self._pipeline.close()
        self._interrupts.close()
        self._notices.close()
        self._forward_hook.remove()
