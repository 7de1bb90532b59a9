"""Local processes meet where nobody else can come."""

import functools
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import launch_mains as mains
import pytest

from thinwire.experiments.ending import Terminated
from thinwire.experiments.launch import launch

SIZE = 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not say who listens")
def test_nothing_listens_but_gloo_on_the_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What other programs use must not count.
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    before = mains.listens(os.getpid())
    launch(SIZE, functools.partial(mains.reports, str(tmp_path), os.getpid()))
    for rank in range(SIZE):
        found = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert found["launcher"] == before
        assert found["copied"] == []
        assert set(found["worker"]) <= set(mains.LOOPBACK)


def test_the_folder_in_which_they_meet_is_private_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes = []
    made = tempfile.TemporaryDirectory

    def watched(prefix: str) -> "tempfile.TemporaryDirectory[str]":
        folder = made(prefix=prefix)
        modes.append(os.stat(folder.name).st_mode & 0o777)
        return folder

    monkeypatch.setattr(tempfile, "TemporaryDirectory", watched)
    results = tmp_path / "results"
    results.mkdir()
    launch(1, functools.partial(mains.reports, str(results), os.getpid()))
    assert modes == [0o700]
    assert not list(tmp_path.glob("thinwire-*"))


def test_sigterm_ends_the_workers_and_handlers_are_as_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated):
        launch(SIZE, functools.partial(mains.ends_the_launcher, str(tmp_path), os.getpid()))
    assert signal.getsignal(signal.SIGTERM) is before
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == SIZE
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
