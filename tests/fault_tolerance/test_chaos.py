"""Processes are killed while they send and while they vote, stopped, left without a lighthouse, and struck at random.

In the end all hold one model, and what was handed in is what has moved it and what is owed.
"""

import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"
TRAPS = ("0:voting@6", "1:sending@16", "2:proposed@26:stop", "1:voted@34")
"""Participant, place, exchange. After the first one has all votes, and lets count what another one does not."""


@pytest.fixture(scope="module", params=["signtopk:density=10%,every=4", "ef-sgd:density=10%"])
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Of models, then of gradients."""
    options = {
        "replicas": 3, "minutes": 0.15, "faults-an-hour": 900, "pace-s": 0.02, "calm-s": 1, "down-s": 0.5, "stop-s": 3,
        "timeout-s": 3, "seed": 3, "loss-streams": 1, "method": request.param,
    }  # fmt: skip
    return measured(options, "--restart-lighthouse", *(word for trap in TRAPS for word in ("--trap", trap)))


def measured(options: dict[str, Any], *more: str) -> dict[str, Any]:
    """What the benchmark says at its end."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(SCRIPT), *words, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.skipif(shutil.which("ip") is None or os.getuid() != 0, reason="network namespaces need root and iproute2")
def test_a_link_that_is_down_for_a_while_loses_and_doubles_nothing() -> None:
    """Shorter than the timeout, as where a router begins again."""
    if subprocess.run(["ip", "netns", "list"], capture_output=True, check=False).returncode:
        pytest.skip("there can be no network namespaces here")
    options = {
        "replicas": 3, "minutes": 0.12, "faults-an-hour": 2400, "pace-s": 0.02, "calm-s": 1, "link-down-s": 0.7,
        "timeout-s": 8, "seed": 5, "kinds": "link", "loss-streams": 0, "method": "ef-sgd:density=10%",
    }  # fmt: skip
    found = measured(options, "--links")
    assert found["kinds"]["link"] >= 2
    assert found["are_alike"]
    assert found["violation"] < 1e-6 < 0.05 < found["moved"]


def test_all_hold_one_model_and_the_account_balances(found: dict[str, Any]) -> None:
    assert found["are_alike"]
    assert found["violation"] < 1e-6 < 0.1 < found["moved"]
    assert found["owed_moved"] < 1e-6, "by no change of membership"


def test_whatever_was_to_happen_has_happened(found: dict[str, Any]) -> None:
    assert sorted(found["struck"]) == [
        "replica_0 voting", "replica_1 sending", "replica_1 voted", "replica_2 proposed",
    ]  # fmt: skip
    assert found["faults"] >= 1
    assert found["failed_attempts"] >= 2


def test_a_message_that_counted_elsewhere_is_not_sent_again(found: dict[str, Any]) -> None:
    """Of who was killed as it voted, and of the survivor that did not hear its vote."""
    assert found["fates"]["counted"] >= 2
    assert found["fates"]["stale"] == 0


def test_nobody_new_was_taken_over(found: dict[str, Any]) -> None:
    assert found["loss"] < 1.5 * min(found["losses_without_faults"])
    assert all(0.3 < share <= 1.0 for share in found["participation"].values())


def test_participation_is_of_the_exchanges_that_were_lived_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2 to 5, b was away in 2 and 3, and 4 counted without it."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    figures = importlib.import_module("fault_figures")
    names = {1: "ab", 2: "a", 3: "a", 4: "a", 5: "ab"}
    lines = [
        {"event": "counted", "number": number, "time": number + late, "names": [*who]}
        for number, who in names.items()
        for late in (0.0, 0.1)
    ]
    away = {"a": [], "b": [(1.5, 2.5)], "c": [(0.0, math.inf)]}
    assert figures.participation_of_the_living(lines, away) == {"a": 1.0, "b": 0.5, "c": 0.0}
