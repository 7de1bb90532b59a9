"""The records of runs on disk: JSON lines, read back with what a crash or a second writer has left."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from thinwire.errors import ConfigError
from thinwire.experiments.spec import Run
from thinwire.files import StrPath, write_atomically

Record = dict[str, Any]
RECORDS = "records.jsonl"
"""The file of a run, in its folder."""


def run_folder(out: StrPath, run: Run) -> Path:
    """Where a run keeps its records and checkpoints."""
    return Path(out) / "runs" / run.name


def records_of(out: StrPath, run: Run) -> list[Record]:
    """What a run has written so far; see :func:`read_run`."""
    return read_run(run_folder(out, run) / RECORDS)


def is_done(out: StrPath, run: Run) -> bool:
    """Whether nothing of a run is left to do; see :func:`is_finished`."""
    return is_finished(records_of(out, run), run)


def read_records(path: StrPath) -> list[Record]:
    """The complete lines of a records file; none if it is not there. A line cut off by a crash is left out.

    None either if it is damaged: what cannot be trusted is made again.

    Raises:
        ConfigError: something else than a file is there, or it must not be read.
    """
    file = Path(path)
    if not file.exists():
        return []
    try:
        records: list[Record] = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
        sound = all(type(record["step"]) is int and "value" in record and "method" in record for record in records)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); give another --out") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return records if sound else []


def read_run(path: StrPath) -> list[Record]:
    """:func:`read_records` of one run: none if two wrote to the file, so that steps come twice.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "records.jsonl"
        ...     _ = file.write_text('{"method": "sgd", "step": 0, "value": 0.1}\\n' * 2)
        ...     len(read_records(file)), len(read_run(file))
        (2, 0)
    """
    records = read_records(path)
    steps = [record["step"] for record in records]
    return records if steps == sorted(set(steps)) else []


def is_finished(records: list[Record], run: Run) -> bool:
    """Whether the run reached its last step, or diverged before it."""
    return bool(records) and (records[-1]["step"] >= run.steps or records[-1]["value"] is None)


def write_records(path: StrPath, records: Iterable[Record]) -> None:
    """Write a file of records, one JSON object a line.

    Raises:
        ConfigError: it cannot be written.
    """
    write_atomically(path, "".join(json.dumps(record) + "\n" for record in records).encode())
