"""Accelerate: a model, an optimizer and whatever else, prepared to exchange what a method says."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from thinwire.errors import ConfigError
from thinwire.integrations.attachment import Attachment, parsed, wants_ddp
from thinwire.integrations.islands import is_sharded, sharded_within_replicas
from thinwire.methods import Method


class Exchange:
    """What :func:`prepare` attached to an accelerator; a context manager that detaches at its end."""

    def __init__(self, accelerator: Accelerator, attachment: Attachment) -> None:
        self._attachment = attachment
        self._folder = Path()
        before = sum(isinstance(other, Exchange) for other in accelerator._custom_objects)
        self._name = f"thinwire-{before + 1}" if before else "thinwire"
        self._hooks = [
            accelerator.register_save_state_pre_hook(self._before_save),
            accelerator.register_load_state_pre_hook(self._before_load),
        ]
        # Custom objects are loaded last: only then may parameters and the optimizer's state be overwritten by our own.
        accelerator.register_for_checkpointing(self)

    @property
    def message_bytes(self) -> int:
        """Bytes this process handed to the exchange so far, encoded."""
        return self._attachment.message_bytes

    @contextmanager
    def shared_model(self) -> Iterator[None]:
        """Inside the block the model holds the parameters that all processes have in common: evaluate or export it."""
        self._attachment.show_shared()
        try:
            yield
        finally:
            self._attachment.show_own()

    def state_dict(self) -> dict[str, int]:
        """For ``save_state``, which keeps process 0's; each process has written its own file by then."""
        return {"message_bytes": self.message_bytes}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        """For ``load_state``, which calls it at the end: go on from this process's own file."""
        self._attachment.load(self._folder)

    def flush(self) -> None:
        """Share what was done after the last exchange, at the end of training; every process calls it."""
        self._attachment.flush()

    def close(self) -> None:
        """Detach; call it before ``accelerator.end_training()``, and :meth:`flush` before it."""
        for hook in self._hooks:
            hook.remove()
        self._attachment.close()

    def __enter__(self) -> "Exchange":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush, unless an error ends the block, and close."""
        try:
            if error is None:
                self.flush()
        finally:
            self.close()

    def _before_save(self, models: list[nn.Module], weights: list[dict[str, Tensor]], folder: str) -> None:
        self._attachment.save(Path(folder) / self._name, step=1)
        for model, state in zip(models, weights, strict=False):  # no weights here if they are sharded
            if model is self._attachment.model:
                state.update(self._attachment.shared_state())

    def _before_load(self, models: list[nn.Module], folder: str) -> None:
        self._folder = Path(folder) / self._name


def prepare(
    accelerator: Accelerator,
    method: str | Method,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *others: Any,
    seed: int = 0,
    warn_if_slower: bool = True,
) -> tuple[Any, ...]:
    """As ``accelerator.prepare(model, optimizer, ...)``, with an exchange over a thin wire.

    A method that compresses gradients at every step becomes the communication hook of the DDP that Accelerate wraps
    the model in. Any other leaves the model unwrapped and exchanges when the optimizer steps, also under gradient
    accumulation. ``accelerator.save_state`` then writes a file for each process as well, and ``load_state`` goes on
    from it with the bits of an uninterrupted run; the weights that ``save_state`` writes are those that all processes
    have in common.

    With ``FullyShardedDataParallelPlugin(fsdp_version=2)`` and ``ParallelismConfig(dp_replicate_size=...,
    dp_shard_size=...)`` FSDP2 shards the model within each replica, and a method that compresses gradients averages
    them between the replicas, as by :func:`thinwire.compress_fsdp`.

    Args:
        accelerator: of several processes, started by ``torchrun`` or ``accelerate launch``.
        method: a method string such as ``"signtopk:density=1%,every=8"``, or a method.
        model: not prepared yet.
        optimizer: over parameters of ``model``, not prepared yet. If several share them, the others are in ``others``;
            a second model (of a GAN) is given to a call of its own, with its optimizer.
        others: loaders, schedulers, further optimizers.
        seed: the same on every process; addresses the method's randomness.
        warn_if_slower: the same on every process; whether to measure, where gradients are compressed, if that pays on
            this link.

    Returns:
        The :class:`Exchange`, then all that was given, prepared, in order.

    Raises:
        ConfigError: an unknown method, one with a server, one that does not fit the model, a second model, or one that
            is sharded and has no replicas.

    Example::

        accelerator = Accelerator()
        exchange, model, optimizer, loader = prepare(
            accelerator, "signtopk:density=1%,every=8", model, optimizer, loader
        )
    """
    product = parsed(method)
    if any(isinstance(other, nn.Module) for other in others):
        raise ConfigError("several models were given; call prepare once for each, with its optimizers")
    if accelerator.is_fsdp2:
        with sharded_within_replicas(accelerator):
            model, prepared, *rest = accelerator.prepare(model, optimizer, *others)
    elif is_sharded(model):
        raise ConfigError(
            "the model is sharded, and the accelerator would save it as if it were not; give "
            "Accelerator(fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2), "
            "parallelism_config=ParallelismConfig(dp_replicate_size=..., dp_shard_size=...))"
        )
    elif wants_ddp(product):
        model, prepared, *rest = accelerator.prepare(model, optimizer, *others)
    else:
        # Placement and mixed precision as ever, but no DDP, which would send all gradients in full.
        model = accelerator.prepare_model(model, evaluation_mode=True)
        prepared = accelerator.prepare_optimizer(optimizer)
        # Optimizers first: a scheduler looks for its own among them.
        first = {id(other): accelerator.prepare_optimizer(other) for other in others if _is_optimizer(other)}
        rest = [first[id(other)] if id(other) in first else accelerator.prepare(other) for other in others]
    optimizers = [prepared.optimizer, *(other.optimizer for other in rest if _is_optimizer(other))]
    attachment = Attachment(model, optimizers, product, seed, accelerator.scaler, warn_if_slower)
    return Exchange(accelerator, attachment), model, prepared, *rest


def _is_optimizer(value: object) -> bool:
    """Whether it is one of torch's, or Accelerate's wrapper of one, which is of torch's class too."""
    return isinstance(value, torch.optim.Optimizer)
