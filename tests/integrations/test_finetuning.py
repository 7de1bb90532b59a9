"""Layers that Lightning unfreezes in mid-training take part from then on: replicas stay alike."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

METHODS = ("topk:density=5%", "local-sgd:every=4")


@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="it is one of the extras")
def test_a_backbone_that_is_unfrozen_is_exchanged(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    main = str(Path(__file__).with_name("finetuning_mains.py"))
    done = subprocess.run([*command, main, str(tmp_path), *METHODS], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, other = (json.loads(Path(tmp_path, f"{rank}.json").read_text()) for rank in range(2))
    for method in METHODS:
        (norms, weights), (_, others) = one[method], other[method]
        assert weights == others
        assert norms[0] == norms[1]
        assert abs(norms[3] - norms[1]) > 1e-4
