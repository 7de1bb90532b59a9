"""What ``thinwire pareto`` keeps beside the comparison that it makes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinwire import report
from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.report import RecordedComparison
from thinwire.report.fields import field, json_object, read_text, texts

FILE = "pareto.json"
"""In the folder of a comparison it makes it one of a family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFamily:
    """A comparison, and the parts that each of its methods is made of."""

    comparison: RecordedComparison
    parts: Mapping[str, tuple[str, ...]]


def family_text(parts: Mapping[str, Sequence[str]]) -> str:
    """The contents of :data:`FILE`, by method."""
    return json.dumps({"parts": {method: list(own) for method, own in parts.items()}}, indent=1) + "\n"


def load_family(folder: StrPath) -> RecordedFamily:
    """Read what ``thinwire pareto`` wrote.

    Raises:
        ConfigError: a file is missing or damaged, or a method of the comparison is not in :data:`FILE`.
    """
    comparison = report.load(folder)
    path = Path(folder) / FILE
    known = field(json_object(read_text(path), str(path)), "parts", str(path), dict)
    missing = [method for method in comparison.methods if method not in known]
    if missing:
        raise ConfigError(
            f"{path} does not say what {', '.join(missing)} is made of: another command than thinwire pareto wrote to "
            f"the folder. Run thinwire pareto again, or delete {FILE} to see the folder as a comparison"
        )
    parts = {method: texts(known, method, str(path)) for method in comparison.methods}
    return RecordedFamily(comparison=comparison, parts=parts)
