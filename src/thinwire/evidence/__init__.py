"""Questions that readers of the literature asked, the studies that answer each, and a verdict from their data."""

from thinwire.evidence.answers import Answer, answer, parts_for
from thinwire.evidence.demand import Demand, Finding
from thinwire.evidence.demands import DEMANDS, demands_of
from thinwire.evidence.page import figure_name, lines, markdown, summary
from thinwire.evidence.running import is_done, part_folder, run_parts
from thinwire.evidence.study import SIZES, Part, Size, Study, read_studies

__all__ = [
    "DEMANDS",
    "SIZES",
    "Answer",
    "Demand",
    "Finding",
    "Part",
    "Size",
    "Study",
    "answer",
    "demands_of",
    "figure_name",
    "is_done",
    "lines",
    "markdown",
    "part_folder",
    "parts_for",
    "read_studies",
    "run_parts",
    "summary",
]
