"""Try methods on virtual workers and a virtual link, then run the best for real, with the same bits. Run it both ways:

python examples/simulate_first.py
torchrun --standalone --nproc-per-node 2 examples/simulate_first.py
"""

import copy
from collections.abc import Callable

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import thinwire

SIZE, NUM_STEPS = 2, 120
METHODS = ("sgd", "qsgd:bits=4", "topk:density=2%", "signtopk:density=2%,every=4")


def data() -> tuple[Tensor, Tensor]:
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    return images.float() / 16, labels.long()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def loss_of(model: Callable[[Tensor], Tensor], step: int, rank: int) -> Tensor:
    images, labels = data()
    generator = torch.Generator().manual_seed(1000 * step + rank)
    batch = SIZE * torch.randint(1500 // SIZE, (32,), generator=generator) + rank
    return F.cross_entropy(model(images[batch]), labels[batch])


def accuracy(model: nn.Module, params: dict[str, Tensor]) -> float:
    images, labels = data()
    outputs: Tensor = torch.func.functional_call(model, params, (images[1500:],))
    return (outputs.argmax(1) == labels[1500:]).float().mean().item()


def simulate(method: str) -> None:
    workers = []
    for rank in range(SIZE):
        model = copy.deepcopy(network())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        workers.append(thinwire.Worker(thinwire.parse_method(method), model, optimizer, rank=rank, size=SIZE, seed=0))
    simulation = thinwire.Simulation(SIZE, thinwire.Network.parse("10Mbit,20ms"))
    for step in range(NUM_STEPS):
        for worker in workers:
            worker.optimizer.zero_grad()
            loss_of(worker.model, step, worker.rank).backward()
        simulation.run([worker.step() for worker in workers])
    found = accuracy(workers[0].model, workers[0].shared_parameters())
    print(
        f"{method:30s} accuracy {found:.4f}, {workers[0].message_bytes:>10,} message bytes, "
        f"{simulation.clocks[0]:6.2f} virtual seconds on the link"
    )


def run(method: str) -> None:
    dist.init_process_group()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with thinwire.synchronize(optimizer, model, method) as sync:
        for step in range(NUM_STEPS):
            optimizer.zero_grad()
            loss_of(model, step, dist.get_rank()).backward()
            optimizer.step()
        if dist.get_rank() == 0:
            found = accuracy(model, sync.shared_parameters())
            print(f"{method:30s} accuracy {found:.4f}, {sync.message_bytes:>10,} message bytes, really sent")
    dist.destroy_process_group()


def main() -> None:
    torch.set_num_threads(1)  # sums depend on how many threads share them
    if dist.is_torchelastic_launched():
        run(METHODS[-1])
    else:
        for method in METHODS:
            simulate(method)


if __name__ == "__main__":
    main()
