"""Studies are run once, go on where they stopped, and give verdicts that follow their data."""

import json
import math
import random
from pathlib import Path

import pytest
from scipy import stats

from thinwire.errors import ConfigError
from thinwire.evidence import (
    answer,
    demands_of,
    lines,
    markdown,
    part_folder,
    parts_for,
    read_studies,
    run_parts,
    summary,
)
from thinwire.evidence.found import is_below
from thinwire.report import Amount

SPECIAL = """about = "special cases"
[quick]
logreg = '''compare sgd local-sgd:every=1 topk:density=5% mem-sgd:density=5% signtopk:density=5%,every=4
  qsparse:density=5%,values=signs,every=4,exchange=gather ef-signsgd
  qsparse:density=100%,values=signs,granularity=tensor,exchange=gather
  --task logreg --workers 2 --steps 8 --lrs 10 --seeds 0 --codec free'''
[full]
logreg = "compare sgd"
"""


def nothing(done: int, total: int, last: str) -> None:
    del done, total, last


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of studies, and one of results."""
    studies, out = tmp_path_factory.mktemp("studies"), tmp_path_factory.mktemp("out")
    (studies / "special.toml").write_text(SPECIAL)
    failures = run_parts(parts_for(demands_of((41,)), read_studies(studies), "quick"), out, 1, nothing)
    assert failures == {}
    return studies, out


def test_special_cases_are_equal_and_the_verdict_follows_the_records(ran: tuple[Path, Path], tmp_path: Path) -> None:
    studies, out = read_studies(ran[0]), ran[1]
    (found,) = answer(demands_of((41,)), studies, "quick", out, {})
    assert found.verdict == "holds"
    assert "in every bit" in found.found
    (part,) = parts_for(demands_of((41,)), studies, "quick")
    records = part_folder(out, part) / "results.jsonl"
    kept = records.read_text()
    changed = [json.loads(line) for line in kept.splitlines()]
    for line in changed:
        if line["method"] == "mem-sgd:density=5%" and line["step"] == 8:
            line["loss"] *= 1.5
    records.write_text("".join(json.dumps(line) + "\n" for line in changed))
    (found,) = answer(demands_of((41,)), studies, "quick", out, {})
    records.write_text(kept)
    assert found.verdict == "refuted"
    page = markdown([found], list(studies.values()), command="thinwire reproduce 41", made_by="Made here.")
    assert "**refuted**" in page
    assert "1 of 1 questions answered: 1 refuted" in page
    assert lines(found)[0] == "41 refuted: Are TopK, EF-signSGD and SGD special cases of one algorithm?"


def test_what_is_done_is_not_run_again(ran: tuple[Path, Path]) -> None:
    studies, out = read_studies(ran[0]), ran[1]
    (part,) = parts_for(demands_of((41,)), studies, "quick")
    before = (part_folder(out, part) / "output.txt").stat().st_mtime_ns
    told: list[tuple[int, int, str]] = []
    assert run_parts([part], out, 2, lambda *each: told.append(each)) == {}
    assert told == [(1, 1, "")]
    assert (part_folder(out, part) / "output.txt").stat().st_mtime_ns == before


def test_results_of_another_command_are_refused(ran: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "special.toml").write_text(SPECIAL.replace("--steps 8", "--steps 9"))
    parts = parts_for(demands_of((41,)), read_studies(tmp_path), "quick")
    with pytest.raises(ConfigError, match="holds the results of another command or version"):
        run_parts(parts, ran[1], 1, nothing)


def test_a_command_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    text = (
        "about = 'a'\n[quick]\ncontest = 'hogwild --variants nobody'\ncompress = 'methods sgd'\n[full]\na = 'methods'\n"
    )
    (tmp_path / "threads.toml").write_text(text)
    studies = read_studies(tmp_path)
    out = tmp_path / "out"
    failures = run_parts(parts_for(demands_of((18, 21)), studies, "quick"), out, 2, nothing)
    assert list(failures) == ["threads/contest"]
    assert "unknown variant 'nobody'" in failures["threads/contest"]
    (found,) = answer(demands_of((18,)), studies, "quick", out, failures)
    assert found.verdict == "missing"
    assert "unknown variant 'nobody'" in found.found
    assert summary([found]) == "0 of 1 questions answered: 1 missing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("about = 3\n[quick]\na='methods'\n[full]\na='methods'\n", "needs about = a text"),
        ("about = 'a'\nfast = true\n", "unknown key 'fast'"),
        ("about = 'a'\n[quick]\na='methods'\n", "needs tables quick and full"),
        ("about = 'a'\n[quick]\na=3\n[full]\na='methods'\n", "takes a command, as a text"),
        ("about = 'a'\n[quick]\na=''\n[full]\na='methods'\n", "the command of a is empty"),
        ("about = 'a'\n[quick]\na='x \"y'\n[full]\na='methods'\n", "the command of a cannot be read"),
        ("about = ", "cannot be read"),
    ],
)
def test_a_study_that_cannot_be_read_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "broken.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_studies(tmp_path)


def test_amounts_are_told_apart_where_their_intervals_are() -> None:
    """With normal samples, two equal means are told apart in at most 5 % of cases (the intervals of both must miss)."""
    draw = random.Random(0)
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)
    apart = 0
    for _ in range(2000):
        pair = []
        for _ in range(2):
            values = [draw.gauss(0.0, 1.0) for _ in range(3)]
            mean = sum(values) / 3
            spread = math.sqrt(sum((each - mean) ** 2 for each in values) / 2)
            pair.append(Amount(mean, half * spread))
        apart += is_below(*pair) is not None
    assert apart < 0.05 * 2000
    assert is_below(Amount(1.0, 0.4), Amount(2.0, 0.5))
    assert is_below(Amount(2.0, 0.4), Amount(1.0, 0.5)) is False
    assert is_below(Amount(1.0, 0.6), Amount(2.0, 0.5)) is None
    assert is_below(Amount(1.0), Amount(math.inf))
