"""Nothing of ours imports Triton on the CPU, where a machine may have none; torch does when an optimizer is made."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys, torch, thinwire
assert "triton" not in sys.modules
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
print([name for name in sys.modules if name.startswith("thinwire.") and "triton" in name])
"""


@pytest.mark.parametrize("method", ["signtopk:density=5%,every=1", "qsgd:bits=4"])
def test_a_step_on_the_cpu_imports_no_kernel_of_triton(method: str) -> None:
    pytest.importorskip("triton")  # where it is not installed, none of these could be imported
    ended = subprocess.run([sys.executable, "-c", SCRIPT, method], capture_output=True, text=True, check=False)
    assert ended.stdout == "[]\n", ended.stderr[-4000:]
