"""Ray Train's own TorchTrainer, with compressed gradients: the marked lines are thinwire's. Run it with

python examples/ray_train.py
"""

import tempfile

import ray.train.torch
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import thinwire  # thinwire: 1


def train(settings: dict[str, str]) -> None:
    rank, size = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    images, labels = images.float() / 16, labels.long()
    own, test = slice(rank, 1500, size), slice(1500, None)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    model = ray.train.torch.prepare_model(model)
    gradients = thinwire.compress_ddp(model, settings["method"])  # thinwire: 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    generator = torch.Generator().manual_seed(rank)
    for _ in range(200):
        batch = torch.randint(len(images[own]), (32,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(images[own][batch]), labels[own][batch]).backward()
        optimizer.step()

    if rank == 0:
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
        print(f"accuracy {accuracy:.3f}")
        print(f"{settings['method']}: {gradients.message_bytes:,} message bytes")  # thinwire: 3
    gradients.close()  # thinwire: 4


def main(method: str = "signtopk:density=2%") -> None:
    scaling = ray.train.ScalingConfig(num_workers=2)
    with tempfile.TemporaryDirectory() as folder:
        run = ray.train.RunConfig(storage_path=folder)
        trainer = ray.train.torch.TorchTrainer(
            train, train_loop_config={"method": method}, scaling_config=scaling, run_config=run
        )
        trainer.fit()


if __name__ == "__main__":
    main()
