"""Records of comparisons as data frames, against the files."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from report_folders import Plan, write_folder

from thinwire.errors import ConfigError
from thinwire.experiments import descriptions, load

FRAMES = ["pandas", "polars"]


def rows(made: Any, frame: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made.to_dict("records") if frame == "pandas" else made.to_dicts()
    return found


def same(value: Any, written: Any) -> bool:
    """Nothing at all is NaN in pandas."""
    return bool(value == written) or (written is None and (value is None or value != value))


@pytest.mark.parametrize("frame", FRAMES)
def test_one_row_a_record_of_a_comparison(frame: Any, tmp_path: Path) -> None:
    pytest.importorskip(frame)
    folder = write_folder(tmp_path, Plan(diverges={"sgd": (0,)}))
    tuning = [json.loads(line) for line in (tmp_path / "tuning.jsonl").read_text().splitlines()]
    found = rows(load(tmp_path, frame=frame), frame)
    assert [row["purpose"] for row in found] == ["tune"] * len(tuning) + ["final"] * len(folder.results)
    for row, record in zip(found, [*tuning, *folder.results], strict=True):
        assert row.keys() == {"comparison", "purpose", *record}
        assert row["comparison"] == "."
        assert all(same(row[name], value) for name, value in record.items() if value == value)


@pytest.mark.parametrize("frame", FRAMES)
def test_a_folder_of_comparisons_is_one_table(frame: Any, tmp_path: Path) -> None:
    pytest.importorskip(frame)
    parts = {f"workers-{count}": write_folder(tmp_path / f"workers-{count}", Plan(seeds=(count,))) for count in (1, 2)}
    found = rows(load(tmp_path, frame=frame), frame)
    for name, folder in parts.items():
        own = [row["value"] for row in found if (row["comparison"], row["purpose"]) == (name, "final")]
        assert own == [record["value"] for record in folder.results]
    assert descriptions(tmp_path) == {name: folder.comparison for name, folder in parts.items()}


def test_pandas_keeps_what_was_compared(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    folder = write_folder(tmp_path, Plan())
    made = load(tmp_path)
    assert made.attrs["comparisons"] == {".": folder.comparison}
    finals = made[made.purpose == "final"]
    assert finals.groupby("method").seed.nunique().to_dict() == dict.fromkeys(folder.comparison["methods"], 2)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="holds no comparison"):
        load(tmp_path)
    write_folder(tmp_path, Plan())
    for frame in FRAMES:
        monkeypatch.setitem(sys.modules, frame, None)
        with pytest.raises(ConfigError, match=f'needs {frame}, which is not installed .*; run: pip install "{frame}"'):
            load(tmp_path, frame=frame)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'pandas' or 'polars'"):
        load(tmp_path, frame="spark")  # type: ignore[arg-type]
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(ConfigError, match=r"comparison\.json cannot be read"):
        load(tmp_path)
