"""An ordinary training script that others may join, leave and be killed beside. Start a lighthouse, then participants:

torchft_lighthouse --min_replicas 2 --join_timeout_ms 5000
TORCHFT_LIGHTHOUSE=http://localhost:29510 python examples/torchft_training.py site-0    # and site-1, site-2, ...
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import thinwire


def main(name: str, method: str = "signtopk:density=2%,every=4", *, num_steps: int = 400) -> None:
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    images, labels = images.float() / 16, labels.long()
    train, test = slice(None, 1500), slice(1500, None)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with thinwire.fault_tolerant(optimizer, model, method, name=name, state_file=f"{name}.state") as handle:
        while handle.num_steps < num_steps:  # of all: one that comes later begins where the others are
            batch = torch.randint(len(images[train]), (32,))
            optimizer.zero_grad()
            F.cross_entropy(model(images[train][batch]), labels[train][batch]).backward()
            optimizer.step()

    handle.keep_shared()
    accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
    known = handle.participation
    print(f"{name}: accuracy {accuracy:.3f}, {known.num_commits} exchanges, {known.num_failed} failed attempts")


if __name__ == "__main__":
    main(*sys.argv[1:3])
