"""Run by torchrun: a Lightning module is sharded over two of four processes, and two replicas exchange."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from sharded_models import METHOD, examples, local, loss_of, network, state_of, whole
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.data import DataLoader, TensorDataset

from thinwire.errors import ConfigError
from thinwire.integrations.lightning import ThinwireModelParallelStrategy

Meshes = Callable[[LightningModule], DeviceMesh]
"""What ``configure_model`` shards over."""


def of_lightning(module: LightningModule) -> DeviceMesh:
    mesh: DeviceMesh = module.device_mesh["data_parallel"]
    return mesh


def over_both(module: LightningModule) -> DeviceMesh:
    return init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))


def crossed(module: LightningModule) -> DeviceMesh:
    """Islands of processes that do not follow each other."""
    return DeviceMesh("cpu", torch.tensor([[0, 2], [1, 3]]), mesh_dim_names=("islands", "within"))


def crossed_within(module: LightningModule) -> DeviceMesh:
    return crossed(module)["within"]


def with_tensor_parallelism(module: LightningModule) -> DeviceMesh:
    plan = {"0": ColwiseParallel(), "3": RowwiseParallel(), "5": RowwiseParallel(input_layouts=Replicate())}
    parallelize_module(module.network, module.device_mesh["tensor_parallel"], plan)
    return of_lightning(module)


class Module(LightningModule):
    def __init__(self, meshes: Meshes | None) -> None:
        super().__init__()
        self.meshes = meshes
        self.network = network()
        self.losses: list[float] = []

    def configure_model(self) -> None:
        if self.meshes is None:
            return
        mesh = self.meshes(self)
        for layer in (self.network[0], self.network[3], self.network):
            fully_shard(layer, mesh=mesh)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = loss_of(self.network(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        self.log("loss", loss_of(self.network(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.9)}


class Ending(Callback):
    """What the handle remembers when training ends, before it is closed."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        attachment = getattr(trainer.strategy, "_attachment", None)
        if attachment is not None:
            self.found = state_of(attachment.handles[0])


def fit(
    strategy: ModelParallelStrategy, meshes: Meshes | None, folder: Path, epochs: int, resume: Path | None = None
) -> dict[str, Any]:
    torch.manual_seed(100)
    module, ending = Module(meshes), Ending()
    trainer = Trainer(
        accelerator="cpu", devices=4, strategy=strategy, max_epochs=epochs, accumulate_grad_batches=2,
        gradient_clip_val=0.05, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1), ending],
    )  # fmt: skip
    # Four batches for each process: two steps of an epoch.
    data = TensorDataset(*examples(128))
    if resume is not None:
        torch.manual_seed(99)
    loader = DataLoader(data, 8, shuffle=True)
    trainer.fit(module, loader, DataLoader(data, 32), ckpt_path=None if resume is None else str(resume))
    return {
        "model": local(module), "whole": whole(module), "handle": ending.found, "losses": module.losses,
        "steps": trainer.global_step, "validated": trainer.callback_metrics["loss"],
    }  # fmt: skip


def thin(method: str, num_replicas: int = 2, **more: Any) -> ThinwireModelParallelStrategy:
    return ThinwireModelParallelStrategy(method, num_replicas=num_replicas, seed=3, **more)


def resumed_run(folder: Path, is_distributed: bool) -> dict[str, Any]:
    made = partial(thin, METHOD, save_distributed_checkpoint=is_distributed)
    first, again = made(), made()
    found = {"whole": fit(first, of_lightning, folder / "whole", 6), "bytes": first.message_bytes}
    checkpoint = folder / "whole" / "epoch=2.ckpt"
    resumed = fit(again, of_lightning, folder / "resumed", 6, checkpoint)
    return {**found, "resumed": resumed, "resumed bytes": again.message_bytes}


def refusal(strategy: ModelParallelStrategy, meshes: Meshes | None, folder: Path) -> str:
    try:
        fit(strategy, meshes, folder, 1)
    except ConfigError as error:
        return str(error)
    return "nothing"


def main(folder: str) -> None:
    place = Path(folder)
    sgd = thin("sgd")
    found: dict[str, Any] = {
        "plain": fit(ModelParallelStrategy(4, 1), over_both, place / "plain", 3),
        "sgd": fit(sgd, of_lightning, place / "sgd", 3),
        "plain crossed": fit(ModelParallelStrategy(4, 1), crossed, place / "crossed", 3),
        "crossed": fit(thin("sgd", num_replicas=1), crossed_within, place / "own", 3),
        "plain parallel": fit(ModelParallelStrategy(2, 2), with_tensor_parallelism, place / "tensors", 3),
        "parallel": fit(thin("sgd", tensor_parallel_size=2), with_tensor_parallelism, place / "parallel", 3),
        "distributed": resumed_run(place / "distributed", True),
        "full": resumed_run(place / "full", False),
        "local steps": refusal(thin("topk:density=5%,every=4"), of_lightning, place),
        "no replicas": refusal(thin(METHOD, num_replicas=1), of_lightning, place),
        "both dimensions": refusal(thin(METHOD, num_replicas=1), over_both, place),
        "not sharded": refusal(thin(METHOD), None, place),
        "sizes": refusal(thin(METHOD, num_replicas=3), of_lightning, place),
    }
    found["sgd bytes"] = sgd.message_bytes
    torch.save(found, place / f"rank-{dist.get_rank()}.pt")


if __name__ == "__main__":
    main(sys.argv[1])
    dist.destroy_process_group()
