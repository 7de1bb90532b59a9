"""Transformers: a callback that lets a ``Trainer`` exchange what a method says."""

import contextlib
import os
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from thinwire.errors import ConfigError
from thinwire.integrations.attachment import Attachment, parsed, wants_ddp
from thinwire.integrations.islands import sharded_within_replicas
from thinwire.methods import Method


class ThinwireCallback(TrainerCallback):
    """Lets any ``Trainer`` under ``torchrun`` exchange what a method says; made before ``trainer.train()``.

    A method that compresses gradients at every step becomes the communication hook of the trainer's DDP. Any other
    leaves the model unwrapped and exchanges when the optimizer steps. Between two exchanges of a method with local
    steps the processes' models differ: evaluation and the saved model are the parameters that they have in common, and
    so is ``trainer.model`` when ``train`` has ended. With ``TrainingArguments(fsdp=True,
    parallelism_config=ParallelismConfig(dp_replicate_size=..., dp_shard_size=...))`` the gradients of shards are
    averaged, compressed, between the replicas, as by :func:`thinwire.compress_fsdp`.

    Each ``checkpoint-N`` gets a folder ``thinwire`` with one file for each process, and a training that is resumed
    from it has the bits of one that was never interrupted. A checkpoint outside of ``output_dir`` must be named in
    ``TrainingArguments(resume_from_checkpoint=...)``, since a callback is not told what ``train`` was given.

    Args:
        trainer: of any class; its optimizer is one of torch's.
        method: a method string such as ``"signtopk:density=1%,every=8"``, or a method.
        seed: the same on every process; addresses the method's randomness.
        warn_if_slower: the same on every process; whether to measure, where gradients are compressed, if that pays on
            this link.

    Raises:
        ConfigError: an unknown method, or one with a server.

    Example::

        trainer = Trainer(model, arguments, train_dataset=texts)
        trainer.add_callback(ThinwireCallback(trainer, "signtopk:density=1%,every=8"))
        trainer.train(resume_from_checkpoint=True)
    """

    def __init__(self, trainer: Trainer, method: str | Method, *, seed: int = 0, warn_if_slower: bool = True) -> None:
        self.message_bytes = 0
        """Bytes this process handed to the exchange, encoded; counted when training has ended."""
        self._trainer = trainer
        self._method = parsed(method)
        self._seed = seed
        self._warn_if_slower = warn_if_slower
        self._attachment: Attachment | None = None
        self._sharding = contextlib.ExitStack()
        if trainer.accelerator.is_fsdp2:
            # The trainer prepares its model in train(), before it calls any callback.
            self._sharding.enter_context(sharded_within_replicas(trainer.accelerator))
        elif not wants_ddp(self._method):
            # A model that is prepared already is not wrapped in DDP, which would send all gradients in full.
            trainer.accelerator.prepare_model(trainer.model, evaluation_mode=True)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach, and go on from this process's file where a checkpoint has been loaded."""
        self._sharding.close()
        trainer = self._trainer
        optimizer = trainer.optimizer.optimizer
        self._attachment = Attachment(
            trainer.model_wrapped,
            [optimizer],
            self._method,
            self._seed,
            trainer.accelerator.scaler,
            self._warn_if_slower,
        )
        if state.global_step:
            self._attachment.load(_resumed_from(args, state) / "thinwire", state.global_step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Train this process's own parameters."""
        self._active().show_own()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Evaluate and save the parameters that all processes have in common, if either is to follow."""
        if control.should_evaluate or control.should_save:
            self._active().show_shared()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """As after a step."""
        self.on_step_end(args, state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add a file for each process to what the trainer has saved."""
        self._active().save(_checkpoint(args, state) / "thinwire", state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the common parameters in the model, or the best ones that the trainer has just loaded, and detach."""
        attachment = self._active()
        attachment.flush()
        self.message_bytes = attachment.message_bytes
        if args.load_best_model_at_end and state.best_model_checkpoint:
            best = {name: value.clone() for name, value in attachment.model.state_dict().items()}
            attachment.close()
            attachment.model.load_state_dict(best)
        else:
            attachment.keep_shared()
            attachment.close()
        self._attachment = None

    def _active(self) -> Attachment:
        if self._attachment is None:
            raise ConfigError("the callback was added while its trainer trained; add it before trainer.train()")
        return self._attachment


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _resumed_from(args: TrainingArguments, state: TrainerState) -> Path:
    """Callbacks are not told; it is one of this output folder, or a folder that the arguments name."""
    given = args.resume_from_checkpoint
    return Path(given) if isinstance(given, str | os.PathLike) and Path(given).is_dir() else _checkpoint(args, state)
