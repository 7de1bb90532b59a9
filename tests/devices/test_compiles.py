"""Every Triton kernel compiles for a GPU that need not be here, with nothing in local memory."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "triton_compiled.py"


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_every_kernel_compiles(target: str) -> None:
    """Each as it is launched first; ``benchmarks/triton_compiled.py`` compiles every form for four targets."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--once", "--targets", target], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout[-8000:]}\n{ended.stderr[-8000:]}"
