"""An ordinary Accelerate script with one line of thinwire. Run it, and go on from where it was, with

torchrun --standalone --nproc-per-node 2 examples/accelerate_digits.py --epochs 4
torchrun --standalone --nproc-per-node 2 examples/accelerate_digits.py --resume
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from thinwire.integrations.accelerate import prepare


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", default="signtopk:density=2%,every=5")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("runs/accelerate_digits"))
    parser.add_argument(
        "--resume", type=int, nargs="?", const=-1, help="after the newest epoch saved, or after this one"
    )
    given = parser.parse_args(arguments)

    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
    set_seed(0)
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    images = images.float() / 16
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 200, gamma=0.5)
    loader = DataLoader(TensorDataset(images[:1500], labels[:1500]), batch_size=32, shuffle=True)
    exchange, model, optimizer, loader, scheduler = prepare(  # the one line
        accelerator, given.method, model, optimizer, loader, scheduler
    )

    done = 0
    if given.resume is not None:
        saved = sorted(int(folder.name.removeprefix("epoch-")) for folder in given.folder.glob("epoch-*"))
        done = saved[given.resume] if given.resume < 0 else given.resume
        accelerator.load_state(str(given.folder / f"epoch-{done}"))
    for epoch in range(done, given.epochs):
        loader.set_epoch(epoch)
        for inputs, targets in loader:
            optimizer.zero_grad()
            accelerator.backward(F.cross_entropy(model(inputs), targets))
            optimizer.step()
            scheduler.step()
        accelerator.save_state(str(given.folder / f"epoch-{epoch + 1}"))

    model.eval()
    with exchange.shared_model():
        accuracy = (model(images[1500:]).argmax(1) == labels[1500:]).float().mean().item()
    dense = 4 * given.epochs * len(loader) * sum(param.numel() for param in model.parameters())
    accelerator.print(
        f"{given.method}: accuracy {accuracy:.3f}, {exchange.message_bytes:,} message bytes; dense gradients: {dense:,}"
    )
    exchange.close()


if __name__ == "__main__":
    main()
    dist.destroy_process_group()
