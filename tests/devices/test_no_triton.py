"""Nothing imports Triton on the CPU: a script that trains there may be on a machine that has none."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys, torch, thinwire
from thinwire.methods import parse_method
from thinwire.simulator import Simulation
from thinwire.worker import Worker

model = torch.nn.Linear(300, 20)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
worker = Worker(parse_method(sys.argv[1]), model, optimizer, rank=0, size=1, seed=0)
for step in range(2):
    model(torch.ones(2, 300)).square().sum().backward()
    before = model.weight.detach().clone()
    Simulation(1).run([worker.step()])
    assert not torch.equal(before, model.weight)
    assert worker.num_exchanges == step + 1
print("triton" in sys.modules)
"""


@pytest.mark.parametrize("method", ["signtopk:density=5%,every=1", "qsgd:bits=4"])
def test_a_step_on_the_cpu_imports_no_triton(method: str) -> None:
    pytest.importorskip("triton")  # where it is not installed, nothing could import it
    ended = subprocess.run([sys.executable, "-c", SCRIPT, method], capture_output=True, text=True, check=False)
    assert ended.stdout == "False\n", ended.stderr[-4000:]
