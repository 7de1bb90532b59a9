"""Every Triton kernel compiles for GPUs that need not be here, with nothing in local memory and registers to spare."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "triton_compiled.py"
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


def documented() -> dict[str, list[int]]:
    """What the table of ``docs/devices.md`` says each room takes at most, for each target."""
    text = (ROOT / "docs" / "devices.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| \d+ \| (\d+), (\d+), (\d+); (\d+) \|", text, re.MULTILINE)
    return {room: [int(number) for number in numbers] for room, *numbers in rows}


def test_every_kernel_compiles_and_takes_few_registers() -> None:
    """Each as it is launched first; ``benchmarks/triton_compiled.py`` compiles every form."""
    begin = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--once", "--targets", *TARGETS], capture_output=True, text=True, check=False
    )
    print(f"{time.perf_counter() - begin:.0f} s for {len(TARGETS)} targets")
    assert ended.returncode == 0, f"{ended.stdout[-8000:]}\n{ended.stderr[-8000:]}"
    # An eighth and 16 more: versions of Triton differ by about so many.
    most = {room: [number + number // 8 + 16 for number in numbers] for room, numbers in documented().items()}
    found = {}
    for line in ended.stdout.splitlines():
        cells = re.findall(r"(\d+), \d+, [\d.]+", line)
        if cells:
            found[line.split()[0]] = [int(cell) for cell in cells]
    assert {name.split(".")[0] for name in found} == set(most)
    for name, registers in found.items():
        bounds = most[name.split(".")[0]]
        assert all(own <= bound for own, bound in zip(registers, bounds, strict=True)), (name, registers, bounds)
