"""A worker that ends early: the server notices, says why, and what was merged is in the model."""

import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import links_mains
import pytest
import serve_mains as mains

from thinwire.methods import CATALOG, parse_method
from thinwire.worker import needs_server

WORKERS = 3
ROWS = [row for row in CATALOG if needs_server(parse_method(row.name))]
METHODS = [f"{row.name}:every=2" if "every" in row.options else row.name for row in ROWS]
BOUNDED = "qsparse-async:every=2,density=50%,staleness=1"
CASES = [(BOUNDED, how) for how in ("kill", "raise", "leave", "nan")]
CASES += [(name, "nan") for name in METHODS] + [(ROWS[0].name, "kill")]
SAID = {
    "kill": r"worker 1 .*(gone|lost|ended)",
    "raise": r"worker 1 raised ValueError: a bad batch",
    "leave": r"worker 1 .*closed its handle",
    "nan": r"^NaN or inf in the model of at least one worker",
}

Ended = dict[tuple[str, str], list[links_mains.Outcome]]


def run(folder: Path, method: str, how: str) -> list[links_mains.Outcome]:
    return links_mains.run(folder, mains.serves, WORKERS + 1, method, how)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Several at a time: mostly they wait."""
    folder = tmp_path_factory.mktemp("serve")
    with ThreadPoolExecutor(3) as pool:
        promises = {case: pool.submit(run, folder, *case) for case in CASES}
        return {case: promise.result() for case, promise in promises.items()}


@pytest.mark.parametrize(("method", "how"), CASES)
def test_the_server_says_who_is_gone_and_keeps_what_was_merged(method: str, how: str, ended: Ended) -> None:
    server = ended[method, how][WORKERS]
    assert server.error == "", server.text
    assert server.value["error"] == ("NumericsError" if how == "nan" else "WorkerError")
    assert re.search(SAID[how], server.value["text"])
    # Every step takes every entry down from 0.5; nothing else was merged.
    assert all(value <= 0.5 and math.isfinite(value) for value in server.value["model"])
    assert min(server.value["model"]) < 0.5 - 1e-3


@pytest.mark.parametrize(("method", "how"), CASES)
def test_nobody_waits_for_ever(method: str, how: str, ended: Ended) -> None:
    for rank, outcome in enumerate(ended[method, how]):
        if how == "kill" and rank == 1:
            assert outcome.error == "exit code -9"
        else:
            assert outcome.error != "hangs"


@pytest.mark.parametrize("method", [method for method, how in CASES if how == "nan"])
def test_every_worker_raises_the_same_error_where_the_server_meets_nan(method: str, ended: Ended) -> None:
    for outcome in ended[method, "nan"][:WORKERS]:
        assert outcome.error == "NumericsError"
        assert "NaN or inf in the " in outcome.text
        assert "of at least one worker, in 'weight', found at step " in outcome.text
