"""Beside the weights a follower takes some blocks, and a publisher one copy and some blocks, however large they are."""

import json
import os
import subprocess
import sys

import pytest

MAIN = """
import ctypes, gc, json, sys
from pathlib import Path
import torch, thinwire, thinwire.weights.parts
from thinwire.stores import FolderStore
from thinwire.arrays import release

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))

def peak(function):
    release()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free would be used again, and not be seen
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    kept = function()
    return status("VmHWM") - before, kept

def change(weights, share, generator):
    for each in weights.values():
        bits = each.view(torch.int16)
        for part in bits.split(1 << 16):
            part += (torch.rand(part.shape, generator=generator) < share).to(torch.int16)

def measure(numel, share, folder):
    generator = torch.Generator().manual_seed(0)
    trained = {str(i): torch.empty(numel // 4, dtype=torch.bfloat16) for i in range(4)}
    for each in trained.values():
        for part in each.split(1 << 16):
            part.copy_(torch.randn(part.shape, generator=generator))
    served = {name: torch.ones_like(each) for name, each in trained.items()}
    store = FolderStore(folder)
    publisher = thinwire.sync_weights(trained, to=store)
    follower = thinwire.sync_weights(served, of=store)
    first, _ = peak(publisher.publish)
    snapshot, _ = peak(follower.follow)
    change(trained, share, generator)
    publish, _ = peak(publisher.publish)
    update, _ = peak(follower.follow)
    assert all(torch.equal(trained[name], served[name]) for name in trained)
    return {"first": first, "publish": publish, "snapshot": snapshot, "update": update}

# Blocks and parts in little, so that weights are many of them without being large.
thinwire.weights.layout.BLOCK = 1 << 16
thinwire.weights.parts._ENOUGH = thinwire.weights.parts._AHEAD = 1 << 18
torch.set_num_threads(1)
measure(100_000, 0.3, sys.argv[1] + "/warm")
print(json.dumps(measure(int(sys.argv[2]), 0.3, f"{sys.argv[1]}/{sys.argv[2]}")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc/self")
def test_memory_grows_by_the_publishers_copy_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    numels = (4 << 20, 16 << 20)
    apart = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000", "PYTHONPATH": os.pathsep.join(sys.path)}
    peaks = []
    for numel in numels:
        command = [sys.executable, "-c", MAIN, str(tmp_path_factory.mktemp("stores")), str(numel)]
        found = subprocess.run(command, capture_output=True, text=True, check=False, env=apart)
        assert found.returncode == 0, found.stderr
        peaks.append(json.loads(found.stdout))
    small, large = peaks
    slopes = {name: (large[name] - small[name]) / (2 * (numels[1] - numels[0])) for name in small}
    # A copy of the weights too many would be a slope of 1 more.
    assert 0.75 < slopes.pop("first") < 1.25, peaks
    assert all(slope < 0.25 for slope in slopes.values()), peaks
