"""A method of gradient averaging as the communication hook of DistributedDataParallel."""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from thinwire.distributed.buckets import BucketChannels
from thinwire.distributed.dense_watch import DenseWatch
from thinwire.distributed.guard import ReplicaGuard
from thinwire.distributed.interrupts import Interrupts
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.link_speed import measure_link
from thinwire.distributed.pipeline import Pipeline
from thinwire.distributed.policy import DensePolicy
from thinwire.distributed.replicas import guard_module
from thinwire.distributed.starting_point import begin_alike, common_terms
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError, WorkerError
from thinwire.layout import Layout
from thinwire.methods import GradientAveraging, Method, ModelAveraging, check_method, parse_method
from thinwire.network import Traffic
from thinwire.random import Key
from thinwire.steps import Steps
from thinwire.worker.channel import Channel, Outcome
from thinwire.worker.observing import LayerReport
from thinwire.worker.resize import resized
from thinwire.worker.state import check_same
from thinwire.worker.step_times import StepClock, StepTimes, median_times

# Annotations stay evaluated in this file: DDP looks at those of a hook and refuses text.


class GradScaler(Protocol):
    """What is asked of ``torch.amp.GradScaler``."""

    def get_scale(self) -> float:
        """The factor that the loss is multiplied by."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Exchanged:
    """A bucket that has its mean: what came of it, when it began, and whether later ones are alike."""

    outcomes: list[tuple[Channel, Outcome]]
    begun_s: float
    counts: bool


class CompressedGradients:
    """The state of a hook, made by :func:`compress_ddp`: memories, counters, and the thread that exchanges.

    Buckets are exchanged in the order in which backward fills them, while it goes on. The memory is known by
    parameter names, so that DDP may rebuild its buckets. A step in which some worker's gradients are not finite leaves
    every worker's memory and key as they were; the gradients that DDP hands out are not finite then, so that a
    ``GradScaler`` skips the step on every worker.
    """

    def __init__(
        self, model: DistributedDataParallel, method: GradientAveraging, policy: DensePolicy, seed: int,
        scaler: GradScaler | None, warn_if_slower: bool, guard: ReplicaGuard | None = None,
        layer_report: LayerReport | None = None, profile: bool = False, links: LinkOptions | None = None,
    ) -> None:  # fmt: skip
        more = {"policy": policy, "guard": guard, "warn_if_slower": warn_if_slower}
        terms = common_terms("compress_ddp", method, seed, model.module, more)
        self.transport = Transport(model.process_group, links, terms)
        self.num_steps = 0
        self.message_bytes = 0
        self._method = method
        self._key = Key(seed).fold("ddp")
        self._scaler = scaler
        self._names = {id(param): name for name, param in model.module.named_parameters()}
        self._outcomes: list[tuple[Channel, Outcome]] = []
        self._report = layer_report
        self._guarded = None if guard is None else guard_module(guard, self.transport, model.module)
        self._clock = self.transport.clock = StepClock() if profile else None
        self._watch: DenseWatch | None = None
        with contextlib.ExitStack() as undo:  # what cannot begin leaves nothing behind
            undo.callback(self.transport.close)
            self._buckets = BucketChannels(
                method, list(self._names.values()),
                policy.names_for(method, model.module, warns=self.transport.rank == 0),
                self._key, self.transport.rank, self.transport.size, self._clock,
            )  # fmt: skip
            self._check(model.module)
            begin_alike(self.transport, model.module)
            if warn_if_slower and self.transport.size > 1:
                network = measure_link(self.transport, model.process_group)
                self._watch = DenseWatch(network, self.transport.size, self.transport.rank == 0, self.transport.share)
            undo.pop_all()
        # A clock cannot tell the work on one bucket from waiting for another.
        self._pipeline = Pipeline(self.transport, ahead=not profile)
        self._interrupts = Interrupts()
        self.transport.watch(self._interrupts)

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

    def exchange(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """Begin the exchange of a bucket; the future's value is its buffer with the mean in it."""
        self.transport.check()
        self._interrupts.came()  # what came before this is Python's own matter
        promise: torch.futures.Future[Tensor] = torch.futures.Future()
        # Asked for here: the bucket is DDP's, and only lent.
        params, grads, buffer, is_last = bucket.parameters(), bucket.gradients(), bucket.buffer(), bucket.is_last()
        handed_s = self._watch.hand_over() if self._watch else 0.0
        done = self._pipeline.submit(
            self._program(params, grads), functools.partial(self._finish, buffer, is_last, handed_s)
        )
        done.add_done_callback(functools.partial(_keep, promise))
        return promise

    @torch.no_grad()
    def _program(self, params: Sequence[Tensor], grads: Sequence[Tensor]) -> Steps[_Exchanged]:
        """The exchange of a bucket."""
        begun_s = self._watch.begin() if self._watch else 0.0
        if self._clock:
            self._clock.switch("apply")
        named = {self._names[id(param)]: grad for param, grad in zip(params, grads, strict=True)}
        scale = self._scaler.get_scale() if self._scaler else 1.0
        is_watched = self._report is not None and self._report.is_due(self.num_steps, self.transport.rank)
        outcomes, counts = [], True
        for channel in self._buckets.of(named):
            ordered = [named[name] for name in channel.layout.names]
            x, finite = channel.gather(ordered)
            if scale != 1.0:
                x.div_(scale)
            compressor = channel.method.compressor_at(self.num_steps)
            counts &= compressor is channel.method.compressor
            outcome = yield from channel.run(x, compressor, finite, self.num_steps, is_watched)
            channel.write_result(outcome.aggregate, ordered, scale)
            outcomes.append((channel, outcome))
        return _Exchanged(outcomes, begun_s, counts)

    @torch.no_grad()
    def _finish(self, buffer: Tensor, is_last: bool, handed_s: float, exchanged: _Exchanged) -> Tensor:
        """What is left to do once the exchanges of all buckets before this one are over too."""
        self._outcomes += exchanged.outcomes
        if is_last:
            self._end_step()
        if self._clock:
            self._clock.switch("compute")
            if is_last:
                self._clock.end_step()
        if self._watch:
            self._watch.end(handed_s, exchanged.begun_s, buffer.nbytes, is_last=is_last, counts=exchanged.counts)
        return buffer

    def _end_step(self) -> None:
        """All of a step's exchanges count, or none: the means are common, so all workers decide alike."""
        if self._guarded:  # parameters do not change before the last bucket is back
            self._guarded.after_step(self.num_steps)
        if all(outcome.aggregate.finite for _, outcome in self._outcomes):
            for channel, outcome in self._outcomes:
                channel.accept(outcome)
                if self._report:
                    self._report.take(channel, outcome, self.num_steps + 1)
                self.message_bytes += outcome.aggregate.message_bytes
            self.num_steps += 1
        self._outcomes.clear()

    def _check(self, model: nn.Module) -> None:
        """Every part refuses what it cannot do before training, on the parameters as one bucket."""
        named = {name: param for name, param in model.named_parameters() if param.requires_grad}
        for name, param in named.items():
            if param.device.type != "cpu" or not param.dtype.is_floating_point:
                raise ConfigError(
                    f"parameter {name!r} is {param.dtype} on {param.device}; this version exchanges floating point "
                    "gradients of models on the CPU"
                )
        names = sorted(named, key=lambda name: name in self._buckets.dense)
        layout = Layout.of({name: named[name] for name in names})
        check_method(self._buckets.fitted(layout), layout)

    def state_dict(self) -> dict[str, Any]:
        """The memory of every parameter by its name, how DDP has cut its buckets, and the counters.

        It loads with ``weights_only=True``. Take it between steps.
        """
        counters = {
            **self._identity(),
            "num_steps": self.num_steps,
            "message_bytes": self.message_bytes,
            "link": [self.traffic.bytes_sent, self.traffic.bytes_received],
            "buckets": self._buckets.cuts(),
        }
        return {"counters": counters, "tensors": self._buckets.tensors()}

    def _identity(self) -> dict[str, Any]:
        """What a state is refused by if it differs."""
        rank, size = self.transport.rank, self.transport.size
        return {"method": repr(self._method), "rank": rank, "size": size, "seed": self._key.seed}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            ConfigError: the state is of another rank, number of processes, seed, method or model.
        """
        counters = saved["counters"]
        check_same(counters, self._identity(), "process")
        known = {name.split(".", 2)[2].removeprefix("#") for name in saved["tensors"]}
        unknown = known.union(*counters["buckets"]) - set(self._names.values())
        if unknown:
            raise ConfigError(f"the saved state is of another model: this one has no {', '.join(sorted(unknown)[:3])}")
        self._buckets.load(saved["tensors"], counters["buckets"])
        self.num_steps, self.message_bytes = counters["num_steps"], counters["message_bytes"]
        self.transport.traffic = Traffic(*counters["link"])

    def exchanged(self) -> dict[str, int]:
        """``id()`` of every parameter that takes part, by its name: a checkpoint finds their model by it."""
        return {name: key for key, name in self._names.items()}

    def load_resized(self, saved: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the states of another number of processes; :func:`thinwire.worker.resize.resized` has the rule.

        Raises:
            ConfigError: as :meth:`load_state_dict`, or the saved processes' models differ.
        """
        known = set(self._names.values())
        named = [{name.removeprefix("module."): tensor for name, tensor in model.items()} for model in models]
        trained = [{name: tensor for name, tensor in model.items() if name in known} for model in named]
        state, _ = resized(self._method, saved, trained, self.transport.rank, self.transport.size)
        if self.transport.rank >= len(saved):
            state["counters"]["link"] = [0, 0]
        self.load_state_dict(state)

    def close(self) -> None:
        """End the threads and the links."""
        self.transport.close()  # whoever waits in a thread hears of it
        self._pipeline.close()
        self._interrupts.close()


def compress_ddp(
    model: DistributedDataParallel,
    method: str | Method,
    *,
    policy: DensePolicy | None = None,
    scaler: GradScaler | None = None,
    seed: int = 0,
    warn_if_slower: bool = True,
    guard: ReplicaGuard | None = None,
    layer_report: LayerReport | None = None,
    profile: bool = False,
    links: LinkOptions | None = None,
) -> CompressedGradients:
    """Let ``model`` exchange its gradients by ``method``, overlapped with backward.

    Wherever a method would look at the whole model it looks at each tensor: DDP hands over one bucket after another.
    Parameters and buffers that are not equal on all processes are sent from process 0. DDP has sent all of them before,
    which takes long on a slow link: ``DistributedDataParallel(model, init_sync=False)`` leaves that out.

    Args:
        model: a wrapped model without another hook.
        method: a method string such as ``"signtopk:density=1%"``, or a method. One that averages models after every
            step, plainly, is taken with its memory in units of a gradient.
        policy: which parameters are sent in full; by default biases, norms, embeddings and what is small.
        scaler: the ``GradScaler`` of mixed precision: the memory is then kept in units of the unscaled gradient.
        seed: the same on every process; addresses the method's randomness.
        warn_if_slower: the same on every process; whether the link is measured now, which takes at most about a
            second, and a :class:`thinwire.distributed.dense_watch.SlowerThanDense` warning is given, once, if after
            12 steps they turn out to take longer than DDP's own are predicted to.
        guard: compare the processes' parameters every now and then; a step is compared in the backward of the next.
        layer_report: sampled exchanges are reported tensor by tensor.
        profile: whether :attr:`CompressedGradients.times` is measured; buckets are then exchanged one after another,
            where otherwise one is compressed while the one before it is on the wire.
        links: how the processes reach each other, and how long they wait.

    Raises:
        ConfigError: a method with local steps or another update of models, one that does not fit, or processes that
            do not agree on these arguments.
        WorkerError: processes cannot reach each other.

    Example::

        model = DistributedDataParallel(model)
        thinwire.compress_ddp(model, "signtopk:density=1%")
    """
    product = _on_gradients(parse_method(method) if isinstance(method, str) else method)
    state = CompressedGradients(
        model, product, policy or DensePolicy(), seed, scaler, warn_if_slower, guard, layer_report, profile, links
    )
    model.register_comm_hook(state, _hook)
    return state


def _hook(
    state: CompressedGradients,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    return state.exchange(bucket)


def can_overlap(method: Method) -> bool:
    """Whether :func:`compress_ddp` takes the method, whose exchange then overlaps with backward.

    Example:
        >>> can_overlap(parse_method("topk:density=1%")), can_overlap(parse_method("local-sgd:every=8"))
        (True, False)
    """
    try:
        _on_gradients(method)
    except ConfigError:
        return False
    return True


def _on_gradients(method: Method) -> GradientAveraging:
    """The method as one that averages gradients."""
    if method.wipe_memory or (isinstance(method, GradientAveraging) and method.clip_norm is not None):
        raise ConfigError(
            "a hook sees neither the norm of the whole gradient nor the learning rate: clip_norm and wipe_memory have "
            "no meaning there; leave them out"
        )
    if isinstance(method, GradientAveraging):
        return method
    names = ("memory", "compressor", "exchange", "granularity", "warm_up")
    parts: dict[str, Any] = {name: getattr(method, name) for name in names}
    if method != ModelAveraging(**parts) or not method.exchange.is_common:
        raise ConfigError(
            f"{method} averages models after local steps or in a way of its own, and DDP's hook sees gradients, at "
            "every step; use thinwire.synchronize without DDP, or leave out every=..."
        )
    return GradientAveraging(**parts)


def _keep(promise: "torch.futures.Future[Tensor]", done: "Future[Tensor]") -> None:
    error = done.exception()
    if error is None:
        promise.set_result(done.result())
    else:
        # torch takes no other kind of error; Ctrl-C itself comes as soon as Python goes on.
        shown = error if isinstance(error, Exception) else WorkerError("the exchange was interrupted")
        promise.set_exception(shown)  # type: ignore[arg-type]
