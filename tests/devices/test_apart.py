"""What needs a process of its own: Triton's interpreter is chosen before Triton is imported, a device once for all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.glob("apart_*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem.removeprefix("apart_"))
def test_apart(path: Path) -> None:
    """Every test in the file, by pytest; a GPU is hidden, whose memory the interpreter cannot reach."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", str(path)],
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout[-20_000:]}\n{ended.stderr[-2_000:]}"
