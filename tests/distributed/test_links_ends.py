"""However a process ends, the others hear of it, and who waits can be interrupted; nothing waits for ever."""

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import links_mains as mains
import pytest

VICTIM = 1


def size_of(form: str) -> int:
    return 3 if form in ("serve", "server exchange") else 2


STOP_TIMEOUT_S = 6.0
"""After which one that has not ended, or not wholly, counts as gone."""

CASES = [
    *(("raise", form) for form in ("gather", "server exchange", "hook", "serve")),
    *(("kill", form) for form in mains.FORMS),
    *(("stop", form) for form in ("gather", "hook", "serve")),
    *(("leave", form) for form in ("gather", "serve")),
    ("fork and kill", "gather"),
]


def end(folder: Path, how: str, form: str) -> list[mains.Outcome]:
    """What those come to who are left."""
    size = size_of(form)
    survivors = [rank for rank in range(size) if rank != VICTIM]
    if form == "serve":
        survivors = [size - 1]  # the other worker hears from the server
    timeout_s = STOP_TIMEOUT_S if how in ("stop", "fork and kill") else mains.DEADLINE_S
    with mains.Crew(folder, mains.trains_until, size, form, VICTIM, how, timeout_s) as crew:
        outcomes = crew.outcomes(survivors)
    return [outcomes[rank] for rank in survivors]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[mains.Outcome]]:
    """Several at a time: mostly they wait."""
    folder = tmp_path_factory.mktemp("ends")
    with ThreadPoolExecutor(4) as pool:
        promises = {case: pool.submit(end, folder, *case) for case in CASES}
        return {case: promise.result() for case, promise in promises.items()}


@pytest.mark.parametrize(("how", "form"), CASES)
def test_the_others_end_soon_with_an_error_that_names_the_one(
    how: str, form: str, ended: dict[tuple[str, str], list[mains.Outcome]]
) -> None:
    for outcome in ended[how, form]:
        assert outcome.error == "WorkerError"
        assert "worker 1" in outcome.text
        assert outcome.seconds < STOP_TIMEOUT_S + mains.SOON_S


@pytest.mark.parametrize("form", [form for how, form in CASES if how == "stop"])
def test_how_long_one_that_is_stopped_was_silent_is_said(
    form: str, ended: dict[tuple[str, str], list[mains.Outcome]]
) -> None:
    for outcome in ended["stop", form]:
        (silent_s,) = re.findall(r"(?:nothing has come from it for|waited|for) ([0-9.]+) s\b", outcome.text)[:1]
        assert float(silent_s) >= 0.25 * STOP_TIMEOUT_S


@pytest.mark.parametrize("form", [form for how, form in CASES if how == "raise"])
def test_the_reason_is_told(form: str, ended: dict[tuple[str, str], list[mains.Outcome]]) -> None:
    for outcome in ended["raise", form]:
        assert "worker 1 raised ValueError: a bad batch (so said worker" in outcome.text


@pytest.mark.parametrize("form", [form for how, form in CASES if how == "leave"])
def test_one_that_leaves_early_is_said_to_have_left(
    form: str, ended: dict[tuple[str, str], list[mains.Outcome]]
) -> None:
    """Its process goes on, and so does the other worker of a server."""
    (outcome,) = ended["leave", form]
    assert "closed its handle" in outcome.text


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


def test_one_that_ends_while_the_processes_meet_is_named_and_not_waited_for(tmp_path: Path) -> None:
    killed, outcome = mains.run(tmp_path, mains.dies_while_they_meet, 2)
    assert killed.error == "exit code -9"
    error, text, seconds = outcome.value
    assert error == "WorkerError"
    assert "worker 1 lost worker 0" in text
    assert "while the processes met" in text
    assert seconds < mains.SOON_S


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
        error, text, seconds = outcome.value
        assert error == "ConfigError"
        assert "this handle is closed" in text
        assert seconds < mains.SOON_S
