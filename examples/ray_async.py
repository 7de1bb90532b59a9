"""Asynchronous training on Ray: workers at their own pace around a server that survives being killed. Run it with

python examples/ray_async.py
"""

import sys
import tempfile

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import thinwire.ray


def digits() -> tuple[Tensor, Tensor]:
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    return images.float() / 16, labels.long()


def build_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def train(worker: thinwire.ray.AsyncWorker) -> int:
    images, labels = (part[:1500] for part in digits())
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(worker.rank)
    with worker.synchronize(optimizer, model) as handle:
        while not handle.is_paused:
            batch = torch.randint(len(images), (32,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return handle.worker.num_steps


def main(method: str = "qsparse-async:density=5%,every=4", *, until: int = 300) -> None:
    with tempfile.TemporaryDirectory() as folder:
        training = thinwire.ray.AsyncTraining(
            train, build_model, method, num_workers=2, until=until, folder=folder, save_every=50
        )
        with training:
            training.add_worker()  # any time; its place may be on another node
            steps = training.wait()
    model, report = build_model(), training.report
    model.load_state_dict(training.shared_parameters(), strict=False)
    images, labels = (part[1500:] for part in digits())
    accuracy = (model(images).argmax(1) == labels).float().mean().item()
    dense = 4 * report.num_merged * sum(param.numel() for param in model.parameters())
    print(
        f"{method}: accuracy {accuracy:.3f}, steps {steps}, {report.num_merged} messages, staleness "
        f"{report.mean_staleness:.1f} on average; {report.bytes_sent:,} bytes sent; dense models: {dense:,}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
