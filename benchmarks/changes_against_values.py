"""Messages that are changes of an estimate against messages of gradients: comparisons of the papers, made again.

    python benchmarks/changes_against_values.py full            # DIANA and QSGD, a few minutes
    python benchmarks/changes_against_values.py noisy           # EF21-SGDM and EF21
    python benchmarks/changes_against_values.py better          # EF21+ and EF21
    python benchmarks/changes_against_values.py gossip          # BEER and CHOCO-SGD
    python benchmarks/changes_against_values.py noisy-gossip    # MoTEF and BEER

Logistic regression with a ridge, dealt out by label so that workers differ, with full gradients or one example a step;
every method at the best of the same learning rates, for each seed. The workers are thinwire's, in the simulator.
"""

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thinwire.methods import parse_method
from thinwire.simulator import Simulation
from thinwire.worker import Worker

SIZE, NUMEL, COUNT, RIDGE = 4, 64, 1024, 0.01
SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison.

    Args:
        methods: by their strings.
        lrs: every method has the best of them.
        num_steps: of every run.
        batch: examples a step and worker; None for all it has.
    """

    methods: tuple[str, ...]
    lrs: tuple[float, ...]
    num_steps: int
    batch: int | None


CASES = {
    "full": Case(
        methods=("sgd", "qsgd:levels=1,granularity=whole", "diana:levels=1,granularity=whole"),
        lrs=(0.25, 0.5, 1.0, 2.0), num_steps=800, batch=None,
    ),
    "noisy": Case(
        methods=("sgd", "ef21:k=2", "ef21-sgdm:k=2,momentum=0.9"),
        lrs=(0.01, 0.03, 0.1, 0.3), num_steps=600, batch=1,
    ),
    "better": Case(
        methods=("sgd", "topk:k=1", "ef21:k=1", "ef21-plus:k=1"),
        lrs=(0.3, 1.0, 3.0, 10.0, 30.0), num_steps=800, batch=None,
    ),
    "gossip": Case(
        methods=("sgd", "d-psgd", "choco:k=6,gamma=0.2", "beer:k=6,gamma=0.2"),
        lrs=(0.1, 0.3, 1.0, 3.0, 10.0), num_steps=1600, batch=None,
    ),
    "noisy-gossip": Case(
        methods=("sgd", "choco:k=1,gamma=0.03", "beer:k=1,gamma=0.03", "motef:k=1,gamma=0.03,momentum=0.9"),
        lrs=(0.03, 0.1, 0.3, 1.0), num_steps=1600, batch=1,
    ),
}  # fmt: skip


class Problem:
    """Logistic regression on Gaussian features, examples sorted by label and dealt out in that order."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(COUNT, NUMEL, generator=generator) / NUMEL**0.5 * 2.0
        score = features @ torch.randn(NUMEL, generator=generator)
        labels = (score + torch.randn(COUNT, generator=generator) > 0).float() * 2 - 1
        order = labels.argsort()
        self.rows = (features * labels.unsqueeze(1))[order].view(SIZE, -1, NUMEL)

    def gradient(self, x: Tensor, rows: Tensor) -> Tensor:
        """Of the mean loss over rows ``[n, d]``, with the ridge."""
        return -(rows * torch.sigmoid(-(rows @ x)).unsqueeze(1)).mean(dim=0) + RIDGE * x

    def full_norm(self, x: Tensor) -> float:
        """Norm of the gradient of the mean over all workers, in f64."""
        rows = self.rows.double().view(-1, NUMEL)
        return float(self.gradient(x.double(), rows).norm())


def train(problem: Problem, text: str, lr: float, steps: int, batch: int | None, seed: int) -> tuple[list[float], int]:
    """Norms of the full gradient at the mean of all models, a root mean square over each tenth of the steps; the bytes
    a worker handed over.
    """
    models = [nn.Linear(NUMEL, 1, bias=False) for _ in range(SIZE)]
    for model in models:
        nn.init.zeros_(model.weight)
    workers = [
        Worker(parse_method(text), model, torch.optim.SGD(model.parameters(), lr=lr), rank=rank, size=SIZE, seed=seed)
        for rank, model in enumerate(models)
    ]
    simulation, generator = Simulation(SIZE), torch.Generator().manual_seed(1000 + seed)
    squares = [0.0] * 10
    for step in range(steps):
        for rank, model in enumerate(models):
            rows = problem.rows[rank]
            if batch is not None:
                rows = rows[torch.randint(len(rows), (batch,), generator=generator)]
            model.weight.grad = problem.gradient(model.weight.detach().view(-1), rows).view(1, -1)
        simulation.run([worker.step() for worker in workers])
        mean = torch.stack([model.weight.detach().view(-1) for model in models]).double().mean(dim=0)
        squares[10 * step // steps] += problem.full_norm(mean) ** 2
    return [(square / (steps // 10)) ** 0.5 for square in squares], workers[0].message_bytes


def table(case: Case) -> None:
    """One row for each method and seed: the norms of some tenths at the rate whose last tenth is the lowest."""
    print(f"{'method':<34}{'bytes':>8}  seed  rate   norms over tenths 1, 3, 5, 7, 10 of {case.num_steps} steps")
    for text in case.methods:
        for seed in SEEDS:
            found = {lr: train(Problem(seed), text, lr, case.num_steps, case.batch, seed) for lr in case.lrs}
            lr = min(found, key=lambda lr: found[lr][0][-1])
            norms, num_bytes = found[lr]
            shown = "  ".join(f"{norms[place]:.2e}" for place in (0, 2, 4, 6, 9))
            print(f"{text:<34}{num_bytes:>8}  {seed:>4}  {lr:<5}  {shown}", flush=True)


def main() -> None:
    """One of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    torch.set_num_threads(1)
    table(CASES[parser.parse_args().case])


if __name__ == "__main__":
    main()
