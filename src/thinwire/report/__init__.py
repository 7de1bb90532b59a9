"""Tables and a self-contained page from the files that a comparison wrote; knows nothing of torch."""

from thinwire.report.page import write_page
from thinwire.report.records import Record, RecordedComparison, load
from thinwire.report.rows import ResultRow, effective_target, summarise
from thinwire.report.settings import RecordedMetric, RecordedNetwork, RecordedSetting
from thinwire.report.tables import print_table
from thinwire.report.terminal import TerminalColumn, TerminalTable, plain, print_fitted

__all__ = [
    "Record",
    "RecordedComparison",
    "RecordedMetric",
    "RecordedNetwork",
    "RecordedSetting",
    "ResultRow",
    "TerminalColumn",
    "TerminalTable",
    "effective_target",
    "load",
    "plain",
    "print_fitted",
    "print_table",
    "summarise",
    "write_page",
]
