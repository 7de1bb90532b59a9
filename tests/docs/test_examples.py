"""What the README, the pages and the examples promise, run as a user would."""

import re
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from thinwire.methods import CATALOG, parse_method
from thinwire.stores import RunKey

ROOT = Path(__file__).parents[2]


def torchrun(size: int, *arguments: str) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


TIMES_FEWER = {"one_line": 300, "ddp_hook": 40, "local_steps": 300, "own_method": 60}


def test_examples_under_torchrun_learn_with_a_small_part_of_the_bytes(tmp_path: Path) -> None:
    shown = torchrun(2, "tests/docs/examples_main.py", str(tmp_path), *TIMES_FEWER, "simulate_first", "local_steps")
    found = re.findall(r"accuracy ([\d.]+), ([\d,]+) message bytes; dense gradients: ([\d,]+)", shown)
    assert len(found) == len(TIMES_FEWER) + 1
    for (accuracy, sent, dense), times_fewer in zip(found, TIMES_FEWER.values(), strict=False):
        assert float(accuracy) > 0.84
        assert int(sent.replace(",", "")) * times_fewer < int(dense.replace(",", ""))
    # The second time there is nothing left to do, and the same is found.
    assert "going on from step 300" in shown
    assert found[-1] == found[list(TIMES_FEWER).index("local_steps")]
    real = re.search(r"accuracy ([\d.]+), +([\d,]+) message bytes, really sent", shown)
    assert real is not None
    done = subprocess.run(
        [sys.executable, "examples/simulate_first.py"], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    simulated = re.findall(r"accuracy ([\d.]+), +([\d,]+) message bytes, +[\d.]+ virtual", done.stdout)
    assert len(simulated) == 4
    assert simulated[-1] == real.groups()


def test_islands_of_sharded_models_learn() -> None:
    shown = torchrun(4, "examples/hsdp.py")
    found = re.search(r"loss ([\d.]+), ([\d,]+) message bytes; dense gradients: ([\d,]+)", shown)
    assert found is not None
    assert float(found[1]) < 3.2  # of 5.5 before training
    sent, dense = (int(each.replace(",", "")) for each in found.groups()[1:])
    assert 10 * sent < dense


def test_an_operator_of_ones_own_composes() -> None:
    done = subprocess.run(
        [sys.executable, "examples/own_compressor.py"], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"relative error ([\d.]+), ([\d,]+) message bytes of ([\d,]+)", done.stdout)
    assert found is not None
    assert float(found[1]) < 0.05
    assert 10 * int(found[2].replace(",", "")) < int(found[3].replace(",", ""))


def test_the_python_of_the_page_on_comparing_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/comparing.md").read_text(), flags=re.DOTALL)
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
    lines = re.findall(r"^\+ (thinwire\.\w+\([a-z, ]*)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert lines == ["thinwire.compress_ddp(model, ", "thinwire.synchronize(optimizer, model, "]
    for line, example in zip(lines, ("ddp_hook", "one_line"), strict=True):
        assert line in (ROOT / f"examples/{example}.py").read_text()


def test_every_method_string_of_the_makefile_parses() -> None:
    names = "|".join(row.name for row in CATALOG)
    found = re.findall(rf"\b(?:{names}):[a-z]+=[\w.%,=-]+", (ROOT / "Makefile").read_text())
    assert found
    for text in found:
        parse_method(text)


def test_two_that_reach_nothing_but_a_folder_learn(tmp_path: Path) -> None:
    RunKey.create().write(tmp_path / "run.key")
    command = [sys.executable, "examples/store_training.py", str(tmp_path / "store")]
    processes = [
        subprocess.Popen([*command, str(rank), "2", str(tmp_path / "run.key")], cwd=ROOT, stdout=-1, text=True)
        for rank in range(2)
    ]
    shown = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    for rank, each in enumerate(shown):
        found = re.search(rf"worker {rank}: accuracy ([\d.]+) after 30 rounds, ([\d,]+) bytes written", each)
        assert found is not None, each
        assert float(found[1]) > 0.84
        assert "participation 100%, 100%" in each


def test_the_script_of_the_page_is_the_example() -> None:
    page, script = (ROOT / name for name in ("docs/object-store.md", "examples/store_training.py"))
    assert script.read_text() in page.read_text()
