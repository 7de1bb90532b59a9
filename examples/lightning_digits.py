"""Lightning over a thin wire: one argument of the Trainer. Run it, and go on from where it was, with

torchrun --standalone --nproc-per-node 2 examples/lightning_digits.py --epochs 4
torchrun --standalone --nproc-per-node 2 examples/lightning_digits.py --resume
"""

import argparse
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset

from thinwire.integrations.lightning import ThinwireStrategy


class Digits(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.layers(images), labels)

    def validation_step(self, batch: list[Tensor]) -> None:
        images, labels = batch
        accuracy = (self.layers(images).argmax(1) == labels).float().mean()
        self.log("accuracy", accuracy, sync_dist=True)

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", default="signtopk:density=2%,every=5")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--folder", default="runs/lightning_digits")
    parser.add_argument("--resume", nargs="?", const="last", help="from the newest checkpoint, or from this one")
    given = parser.parse_args(arguments)

    seed_everything(0, verbose=False)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.from_numpy(images).float() / 16, torch.from_numpy(labels))
    train, test = Subset(data, range(1500)), Subset(data, range(1500, len(data)))
    strategy = ThinwireStrategy(given.method)  # the one line
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=given.epochs,
        callbacks=[ModelCheckpoint(given.folder, filename="{epoch}", save_top_k=-1, save_last="link")],
        default_root_dir=given.folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Digits()
    trainer.fit(model, DataLoader(train, 32, shuffle=True), DataLoader(test, 149), ckpt_path=given.resume)
    if trainer.is_global_zero:
        accuracy = trainer.callback_metrics["accuracy"].item()
        dense = 4 * trainer.global_step * sum(param.numel() for param in model.parameters())
        print(
            f"{given.method}: accuracy {accuracy:.3f}, {strategy.message_bytes:,} message bytes; "
            f"dense gradients: {dense:,}"
        )


if __name__ == "__main__":
    main()
