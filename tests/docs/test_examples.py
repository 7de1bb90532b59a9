"""What the README and the examples promise, run as a user would."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("example", "times_fewer"), [("one_line.py", 300), ("ddp_hook.py", 40)])
def test_one_line_under_torchrun_learns_with_a_small_part_of_the_bytes(example: str, times_fewer: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, f"examples/{example}"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = re.search(r"accuracy ([\d.]+), ([\d,]+) message bytes; dense gradients: ([\d,]+)", done.stdout)
    assert found is not None, done.stdout
    message_bytes, dense = (int(found[group].replace(",", "")) for group in (2, 3))
    assert float(found[1]) > 0.84
    assert message_bytes * times_fewer < dense


def test_the_python_of_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    generator = torch.Generator().manual_seed(0)
    models = [nn.Linear(20, 1) for _ in range(4)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    names: dict[str, object] = {
        "models": models,
        "loader": [[torch.randn(8, 20, generator=generator) for _ in models] for _ in range(16)],
        "loss_of": lambda model, batch: model(batch).square().mean(),
    }
    exec("\n".join(blocks), names)
    workers = names["workers"]
    assert isinstance(workers, list)
    assert all(worker.num_exchanges == 2 for worker in workers)


def test_the_readme_diff_is_the_example() -> None:
    line = "optimizer = thinwire.DistributedOptimizer(optimizer, model, "
    diff = re.search(r"^\+ .*$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert diff is not None
    assert line in diff[0]
    assert line in (ROOT / "examples/one_line.py").read_text()


def test_every_method_string_in_the_readme_parses() -> None:
    from thinwire.methods import CATALOG, parse_method

    names = "|".join(row.name for row in CATALOG)
    text = (ROOT / "README.md").read_text() + (ROOT / "Makefile").read_text()
    for found in re.findall(rf"\b(?:{names}):[a-z]+=[\w.%,=-]+", text):
        parse_method(found.rstrip(",."))
