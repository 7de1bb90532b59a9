"""Training where machines have no route to each other: rounds over a shared folder or a bucket. On each machine:

python -c "from thinwire.stores import RunKey; RunKey.create().write('run.key')"   # once; copy it to all machines
python examples/store_training.py /mnt/shared 0 2      # the place, this worker's rank, the number of workers
python examples/store_training.py s3://bucket/folder 1 2
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import thinwire
from thinwire.stores import RunKey


def main(
    store: str, rank: int, size: int, key_file: str = "run.key", state_file: str | None = None, *, num_steps: int = 300
) -> None:
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    images, labels = images.float() / 16, labels.long()
    train, test = slice(rank, 1500, size), slice(1500, None)

    torch.manual_seed(0)  # all workers must begin with the same parameters
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)

    with thinwire.synchronize_by_store(  # the one line
        optimizer, model, "signtopk:density=2%,every=10", store=store, rank=rank, size=size, run="digits",
        key=RunKey.from_file(key_file), state_file=state_file,
    ) as sync:  # fmt: skip
        while sync.num_steps < num_steps:  # after a restart it goes on from what was handed in last
            generator = torch.Generator().manual_seed(1000 * sync.num_steps + rank)
            batch = torch.randint(len(images[train]), (32,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(images[train][batch]), labels[train][batch]).backward()
            optimizer.step()
        sync.flush()
        with sync.shared_model() as shared:
            accuracy = (shared(images[test]).argmax(1) == labels[test]).float().mean().item()
    shares = ", ".join(f"{share:.0%}" for share in sync.participation.values())
    print(
        f"worker {rank}: accuracy {accuracy:.3f} after {sync.num_rounds} rounds, {sync.bytes_sent:,} bytes written, "
        f"{sync.bytes_received:,} read; participation {shares}"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:6])
