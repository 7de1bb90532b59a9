"""Lightning: strategies whose processes exchange what a method says."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.device_mesh import init_device_mesh

from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.integrations.attachment import Attachment, parsed, wants_ddp
from thinwire.integrations.islands import is_sharded
from thinwire.methods import Method


class ThinwireStrategy(DDPStrategy):
    """``strategy="ddp"`` over a thin wire.

    A method that compresses gradients at every step becomes DDP's communication hook; any other leaves the module
    unwrapped and exchanges when the optimizer steps. Between two exchanges of a method with local steps the
    processes' models differ: validation and the checkpoint's ``state_dict`` use the parameters that they have in
    common, and so does the module when ``fit`` has ended.

    A module may have several optimizers (manual optimization); each exchanges the parameters that it has.

    A checkpoint ``x.ckpt`` has a folder ``x.ckpt.thinwire`` beside it, with one file for each process; keep, move and
    remove the two together, where all processes can see them. A checkpoint saved after ``fit`` has ended, or with
    ``weights_only=True``, has no such folder and is for evaluation only. Resumed from the end of an epoch, a training
    has the bits of one that was never interrupted; within an epoch it would need a loader that Lightning can resume.

    Args:
        method: a method string such as ``"signtopk:density=1%,every=8"``, or a method.
        seed: the same on every process; addresses the method's randomness.
        warn_if_slower: the same on every process; whether to measure, where gradients are compressed, if that pays on
            this link.
        find_unused_parameters: as DDP's.
        process_group_backend: of the collectives that are not ours.

    Raises:
        ConfigError: an unknown method, or one with a server.

    Example::

        trainer = Trainer(accelerator="cpu", devices=2, strategy=ThinwireStrategy("signtopk:density=1%,every=8"))
        trainer.fit(module, loader, ckpt_path="last")
    """

    def __init__(
        self,
        method: str | Method,
        *,
        seed: int = 0,
        warn_if_slower: bool = True,
        find_unused_parameters: bool = False,
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(process_group_backend=process_group_backend, find_unused_parameters=find_unused_parameters)
        self.message_bytes = 0
        """Bytes this process handed to the exchange until the last ``fit`` ended, encoded."""
        self._method = parsed(method)
        self._seed = seed
        self._warn_if_slower = warn_if_slower
        self._attachment: Attachment | None = None
        self._resumed_from: StrPath = ""

    def configure_ddp(self) -> None:
        """Wrap the module if gradients are compressed."""
        if wants_ddp(self._method):
            super().configure_ddp()

    def setup(self, trainer: Trainer) -> None:
        """Attach the method to what Lightning has set up for ``fit``."""
        super().setup(trainer)
        if trainer.state.fn != TrainerFn.FITTING:
            return
        _check_optimizers(self.optimizers)
        scaler = self.precision_plugin.scaler if isinstance(self.precision_plugin, MixedPrecision) else None
        self._attachment = Attachment(
            self.model, self.optimizers, self._method, self._seed, scaler, self._warn_if_slower
        )
        if scaler is None and not wants_ddp(self._method):
            for optimizer in self.optimizers:
                # No GradScaler will ask for it, and Lightning clips no gradients of an optimizer that has it.
                setattr(optimizer, "_step_supports_amp_scaling", False)  # noqa: B010

    def on_validation_start(self) -> None:
        """Validate the parameters that all processes have in common."""
        if self._attachment is not None:
            self._attachment.show_shared()

    def on_validation_end(self) -> None:
        """Train this process's own parameters again."""
        if self._attachment is not None:
            self._attachment.show_own()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's ``state_dict`` with the parameters that all processes have in common."""
        state: dict[str, Any] = (
            self._attachment.shared_state() if self._attachment is not None else super().lightning_module_state_dict()
        )
        return state

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: StrPath, storage_options: Any | None = None
    ) -> None:
        """Write a file for each process, then the checkpoint, which is never there without them."""
        _save_beside(self._attachment, checkpoint, filepath)
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: StrPath, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the checkpoint; this process's file follows when the optimizer is there."""
        self._resumed_from = checkpoint_path
        checkpoint: dict[str, Any] = super().load_checkpoint(checkpoint_path, weights_only)
        return checkpoint

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on from this process's file, over what process 0 saved for all."""
        super().load_optimizer_state_dict(checkpoint)
        if self._attachment is not None:
            self._attachment.load(_folder(self._resumed_from), checkpoint["global_step"])

    def remove_checkpoint(self, filepath: StrPath) -> None:
        """Remove the checkpoint and its folder."""
        super().remove_checkpoint(filepath)
        if self.is_global_zero:
            shutil.rmtree(_folder(filepath), ignore_errors=True)

    def on_train_end(self) -> None:
        """Share what was done after the last exchange; training that an error ends does not come here."""
        super().on_train_end()
        if self._attachment is not None:
            self._attachment.flush()

    def teardown(self) -> None:
        """Leave the common parameters in the module and detach."""
        if self._attachment is not None:
            self.message_bytes = self._attachment.message_bytes
            self._attachment.keep_shared()
            self._attachment.close()
            self._attachment = None
        super().teardown()


class ThinwireModelParallelStrategy(ModelParallelStrategy):
    """``ModelParallelStrategy`` in several replicas, with a thin wire between them.

    Each replica is a group of ``data_parallel_size * tensor_parallel_size`` processes, and the module's
    ``device_mesh`` is that of its own replica: ``configure_model`` stays as it was,
    ``fully_shard(layer, mesh=self.device_mesh["data_parallel"])``. FSDP2 reduces gradients within a replica, and each
    process exchanges its shard's with the other replicas, as by :func:`thinwire.compress_fsdp`. Loaders share out the
    data to all of them.

    A ``configure_model`` may as well make a mesh of its own and shard over one dimension of it: the replicas are then
    the processes that hold the same shard, and ``num_replicas`` stays 1.

    Under ``accumulate_grad_batches`` Lightning reduces a sharded model's gradients after each batch, and so they are
    exchanged after each. Checkpoints are as those of :class:`ThinwireStrategy`, with a folder ``x.ckpt.thinwire``
    beside each, and are resumed by as many processes.

    Args:
        method: a method string such as ``"signtopk:density=1%"``, or a method; one that exchanges gradients at every
            step.
        num_replicas: how many groups of processes hold the model.
        data_parallel_size: processes that share out a replica's parameters and data; by default all that
            ``num_replicas`` and ``tensor_parallel_size`` leave.
        tensor_parallel_size: processes that share out the layers.
        save_distributed_checkpoint: as that of ``ModelParallelStrategy``.
        seed: the same on every process; addresses the method's randomness.
        process_group_backend: of the collectives that are not ours.

    Raises:
        ConfigError: an unknown method, one with a server or with local steps, sizes that do not fit the number of
            processes, or a module that is sharded over all processes.

    Example::

        strategy = ThinwireModelParallelStrategy("signtopk:density=1%", num_replicas=2)
        trainer = Trainer(accelerator="gpu", devices=8, num_nodes=2, strategy=strategy)
    """

    def __init__(
        self, method: str | Method, *, num_replicas: int = 1, data_parallel_size: int | Literal["auto"] = "auto",
        tensor_parallel_size: int = 1, save_distributed_checkpoint: bool = True, seed: int = 0,
        process_group_backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            data_parallel_size=data_parallel_size,
            tensor_parallel_size=tensor_parallel_size,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
        )
        self.message_bytes = 0
        """Bytes this process handed to the exchange until the last ``fit`` ended, encoded."""
        self._method = parsed(method)
        self._seed = seed
        self._replicas = num_replicas
        self._place = 0
        self._sizes = data_parallel_size, tensor_parallel_size
        self._attachment: Attachment | None = None

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Which part of the data this process has: replicas and the processes of a replica share it out."""
        within = self.device_mesh["data_parallel"]
        return {
            "num_replicas": self._replicas * within.size(),
            "rank": self._place * within.size() + within.get_local_rank(),
        }

    def setup_environment(self) -> None:
        """Connect the processes; the device mesh that the module sees is that of its replica."""
        size: int = self.num_nodes * self.num_processes
        given, within = self._sizes
        shards = size // (self._replicas * within) if given == "auto" else given
        if self._replicas * shards * within != size or not shards:
            raise ConfigError(
                f"num_replicas={self._replicas}, data_parallel_size={given} and "
                f"tensor_parallel_size={within} were given, and there are {size} processes; their product must be "
                "that number"
            )
        self._data_parallel_size = self._replicas * shards  # for Lightning, which knows of no replicas
        super().setup_environment()
        self._data_parallel_size = shards
        names = ("replicate", "data_parallel", "tensor_parallel")
        mesh = init_device_mesh(self.root_device.type, (self._replicas, shards, within), mesh_dim_names=names)
        self._place = mesh.get_local_rank("replicate")
        self._device_mesh = mesh["data_parallel", "tensor_parallel"]
        self.lightning_module._device_mesh = self._device_mesh

    def setup(self, trainer: Trainer) -> None:
        """Attach the method to what Lightning has set up for ``fit``."""
        super().setup(trainer)
        if trainer.state.fn != TrainerFn.FITTING:
            return
        _check_optimizers(self.optimizers)
        if not is_sharded(self.model):
            raise ConfigError(
                "configure_model has sharded nothing; call fully_shard(layer, mesh=self.device_mesh["
                '"data_parallel"]) there for each layer and the whole, or take ThinwireStrategy for a module that is '
                "not sharded"
            )
        self._attachment = Attachment(self.model, self.optimizers, self._method, self._seed)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: StrPath, storage_options: Any | None = None
    ) -> None:
        """Write a file for each process, then the checkpoint, which is never there without them."""
        _save_beside(self._attachment, checkpoint, filepath)
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: StrPath, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the checkpoint, and go on from this process's file."""
        checkpoint: dict[str, Any] = super().load_checkpoint(checkpoint_path, weights_only)
        if self._attachment is not None:
            self._attachment.load(_folder(checkpoint_path), checkpoint["global_step"])
        return checkpoint

    def remove_checkpoint(self, filepath: StrPath) -> None:
        """Remove the checkpoint and its folder."""
        super().remove_checkpoint(filepath)
        if self.is_global_zero:
            shutil.rmtree(_folder(filepath), ignore_errors=True)

    def teardown(self) -> None:
        """Detach."""
        if self._attachment is not None:
            self.message_bytes = self._attachment.message_bytes
            self._attachment.close()
            self._attachment = None
        super().teardown()


def _check_optimizers(optimizers: Sequence[object]) -> None:
    if not optimizers:
        raise ConfigError("the module has no optimizer, so that nothing would be exchanged; return one or more")


def _save_beside(attachment: Attachment | None, checkpoint: Mapping[str, Any], filepath: StrPath) -> None:
    """Write the file of this process, if the checkpoint is one to go on from."""
    if attachment is not None and "optimizer_states" in checkpoint:
        # The checkpoint itself follows; until it is there, that of the save before under this name still fits.
        attachment.save(_folder(filepath), checkpoint["global_step"], keep=2)


def _folder(checkpoint: StrPath) -> Path:
    """The folder of a checkpoint, which may be a link to another."""
    if "://" in str(checkpoint):
        raise ConfigError(
            f"checkpoints at {checkpoint} are not supported: every process writes its own file; use a folder that all "
            "processes see"
        )
    path = Path(checkpoint).resolve()
    return path.with_name(path.name + ".thinwire")
