"""However a process ends, the others hear of it, and who waits can be interrupted; nothing waits for ever."""

import os
import signal
from pathlib import Path

import links_mains as mains
import pytest

VICTIM = 1


def size_of(form: str) -> int:
    return 3 if form in ("serve", "server exchange") else 2


def end(folder: Path, form: str, how: str, timeout_s: float) -> list[mains.Outcome]:
    """What those come to who are left; the last outcome is that of the one that matters most."""
    size = size_of(form)
    survivors = [rank for rank in range(size) if rank != VICTIM]
    if form == "serve":
        survivors = [size - 1]  # the other worker hears from the server
    with mains.Crew(folder, mains.trains_until, size, form, VICTIM, how, timeout_s) as crew:
        outcomes = crew.outcomes(survivors)
    return [outcomes[rank] for rank in survivors]


@pytest.mark.parametrize("form", mains.FORMS)
@pytest.mark.parametrize("how", ["raise", "kill"])
def test_the_others_are_told_of_an_end(how: str, form: str, tmp_path: Path) -> None:
    for outcome in end(tmp_path, form, how, mains.DEADLINE_S):
        # DDP wraps what a hook raises.
        assert outcome.error in ("WorkerError", "RuntimeError" if form == "hook" else "WorkerError")
        assert "worker 1" in outcome.text
        assert outcome.seconds < mains.SOON_S
        if how == "raise" and form != "hook":
            assert "worker 1 raised ValueError: a bad batch (so said worker" in outcome.text


@pytest.mark.parametrize("form", ["gather", "hook", "serve"])
def test_one_that_stops_is_named_after_the_timeout(form: str, tmp_path: Path) -> None:
    timeout_s = 2.0
    for outcome in end(tmp_path, form, "stop", timeout_s):
        assert "worker 1" in outcome.text
        assert outcome.seconds < timeout_s + mains.SOON_S


@pytest.mark.parametrize("form", ["gather", "serve"])
def test_one_that_leaves_early_is_named_at_once(form: str, tmp_path: Path) -> None:
    """Its process goes on, and so does the other worker of a server."""
    (outcome,) = end(tmp_path, form, "leave", mains.DEADLINE_S)
    assert outcome.error == "WorkerError"
    assert "worker 1" in outcome.text
    assert "closed its handle" in outcome.text
    assert outcome.seconds < mains.SOON_S


def test_an_end_is_noticed_though_a_child_of_the_process_lives_on(tmp_path: Path) -> None:
    """A child that was forked after the handle was made, such as a loader of data, keeps connections open."""
    timeout_s = 2.0
    (outcome,) = end(tmp_path, "gather", "fork and kill", timeout_s)
    assert outcome.error == "WorkerError"
    assert "worker 1" in outcome.text
    assert outcome.seconds < timeout_s + mains.SOON_S


@pytest.mark.parametrize("form", ["gather", "hook", "serve"])
def test_ctrl_c_ends_who_waits_for_one_that_stopped(form: str, tmp_path: Path) -> None:
    """Under a hook the main thread waits inside torch."""
    waiter, victim = (1, 0) if form == "serve" else (0, 1)
    with mains.Crew(tmp_path, mains.waits, 2, form, victim) as crew:
        crew.wait_for("waits")
        os.kill(crew.pid(waiter), signal.SIGINT)
        outcome = crew.outcomes([waiter])[waiter]
    assert outcome.error == "KeyboardInterrupt"
    assert outcome.seconds < mains.SOON_S


def test_a_handle_is_refused_in_a_copy_of_its_process(tmp_path: Path) -> None:
    for outcome in mains.run(tmp_path, mains.after_a_fork, 2, str(tmp_path)):
        assert (outcome.error, outcome.text) == ("", "")
        for use in ("close", "close hook"):
            assert outcome.value.pop(use) == ("", "")
        for error, text in outcome.value.values():
            assert error in ("ConfigError", "RuntimeError")  # what DDP makes of it
            assert "this handle was made before the process was forked; make one in the new process" in text


def test_a_closed_handle_is_refused_at_once(tmp_path: Path) -> None:
    for outcome in mains.run(tmp_path, mains.after_closing, 2, str(tmp_path)):
        assert (outcome.error, outcome.text) == ("", "")
        found = outcome.value
        for harmless in ("close", "abort", "step"):
            assert found.pop(harmless)[0] == ""
        for error, text, seconds in found.values():
            assert error == "ConfigError"
            assert "this handle is closed; nothing can be exchanged any more" in text
            assert seconds < mains.SOON_S


def test_a_closed_hook_does_not_hang_the_backward_pass(tmp_path: Path) -> None:
    for outcome in mains.run(tmp_path, mains.backward_after_closing, 2):
        assert (outcome.error, outcome.text) == ("", "")
        _, text, seconds = outcome.value
        assert "this handle is closed" in text
        assert seconds < mains.SOON_S
