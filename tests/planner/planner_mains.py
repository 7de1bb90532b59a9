"""What the processes of the planner's tests run; a module of its own, so that they can import it by name."""

import json
from pathlib import Path

import torch
from torch import nn

from thinwire.distributed import Transport
from thinwire.planner import Measurements, TrainingStep, candidates, measure, predict

METHODS = (
    "topk:density=1%",
    "signtopk:density=1%,every=4",
    "local-sgd:every=2",
    "d-psgd",
    "marina:density=25%",
    "des-loc:every=4,momentum=8,variance=16",
)


def step(rank: int) -> TrainingStep:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 80), nn.Tanh(), nn.Linear(80, 10))
    generator = torch.Generator().manual_seed(rank)

    def loss(trained: nn.Module) -> torch.Tensor:
        value: torch.Tensor = trained(torch.randn(8, 60, generator=generator)).square().mean()
        return value

    return TrainingStep(model, loss)


def plan(folder: str, transport: Transport) -> None:
    own, said = step(transport.rank), list[str]()
    chosen = candidates(METHODS)
    found = measure(own, chosen, own.gradients(3), transport, 0.05, said.append)
    rows = predict(found, chosen)
    again = predict(Measurements.from_json(json.loads(json.dumps(found.to_json()))), chosen)
    shown = {
        "rows": [row.to_json() for row in rows],
        "again": [row.to_json() for row in again],
        "found": found.to_json(),
        "said": said,
        "traffic": transport.traffic.bytes_sent,
        "names": list(map(list, found.compute.names)),
    }
    Path(folder, f"rank-{transport.rank}.json").write_text(json.dumps(shown))
