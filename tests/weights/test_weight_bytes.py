"""The benchmark in little: each bit of each step, and at most 80 % of the bytes of the other ways."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("zstandard")
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "weight_sync.py"


def test_a_short_fine_tune_takes_fewer_bytes_than_the_other_ways() -> None:
    little = ["--steps", "12", "--pretrain", "12", "--rates", "1e-5", "--width", "64", "--layers", "1"]
    found = subprocess.run(
        [sys.executable, str(BENCHMARK), *little, "--json"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    rows = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
    assert [row["kind"] for row in rows] == ["bf16", "f32"]
    for row in rows:
        assert row["steps"] == 12
        for level in ("3", "19"):
            assert row["ours_beside"][level] <= 0.8 * row["zstd"][level]
        assert row["ours"] <= 0.8 * 6 * row["changed"]
