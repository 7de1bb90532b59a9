"""What each process of a fine-tuning run does: Lightning unfreezes the backbone after two epochs."""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from thinwire.integrations.lightning import ThinwireStrategy


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(8, 16), nn.Tanh())
        self.head = nn.Linear(16, 3)
        self.norms: list[float] = []

    def training_step(self, batch: list[Tensor]) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(self.head(self.backbone(inputs)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([param for param in self.parameters() if param.requires_grad], lr=0.1)

    def on_train_epoch_end(self) -> None:
        self.norms.append(float(self.backbone.get_parameter("0.weight").detach().double().norm()))


def main(folder: str, *methods: str) -> None:
    found = {}
    for method in methods:
        seed_everything(0, verbose=False)
        data = TensorDataset(torch.randn(64, 8), torch.arange(64) % 3)
        trainer = Trainer(
            accelerator="cpu", devices=2, strategy=ThinwireStrategy(method), max_epochs=4, logger=False,
            callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=2, backbone_initial_lr=0.05, train_bn=False)],
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        model = Classifier()
        trainer.fit(model, DataLoader(data, 8))
        weights = torch.cat([param.detach().view(-1) for param in model.parameters()])
        found[method] = [model.norms, weights.numpy().tobytes().hex()]
        rank = trainer.global_rank
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
