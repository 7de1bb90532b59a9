"""The example trains, and its participants end with one model."""

import os
import re
import subprocess
import sys
from pathlib import Path

from fault_threads import Lighthouse

EXAMPLE = Path(__file__).parents[2] / "examples" / "torchft_training.py"
DIFFERING_LINES = 10


def test_the_example_trains(tmp_path: Path) -> None:
    lighthouse = Lighthouse(min_replicas=2)
    environment = {**os.environ, "TORCHFT_LIGHTHOUSE": lighthouse.address, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLE)]
    participants = [
        subprocess.Popen([*command, f"site-{number}"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    shown = [each.communicate(timeout=120)[0] for each in participants]
    lighthouse.close()
    assert [each.returncode for each in participants] == [0, 0]
    found = [re.search(r"accuracy ([\d.]+), (\d+) exchanges, 0 failed", each) for each in shown]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].groups() == found[1].groups() == (found[0][1], "100")
    assert float(found[0][1]) > 0.85
    assert {path.name for path in tmp_path.iterdir()} == {"site-0.state", "site-1.state"}


def test_few_lines_are_not_those_of_a_script_without_it() -> None:
    lines = EXAMPLE.read_text().splitlines()
    own = [line for line in lines if re.search(r"thinwire|handle|known|participat|TORCHFT|torchft", line)]
    assert 3 <= len(own) <= DIFFERING_LINES
