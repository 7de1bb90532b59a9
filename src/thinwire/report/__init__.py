"""Tables and a self-contained page from the files that a comparison wrote; knows nothing of torch."""

from thinwire.report.exports import csv_lines, csv_table, latex_table
from thinwire.report.intervals import Amount
from thinwire.report.page import write_page
from thinwire.report.records import Record, RecordedComparison, load
from thinwire.report.rows import ResultRow, effective_target, refuse_met_at_start, summarise
from thinwire.report.settings import RecordedMetric, RecordedSetting
from thinwire.report.side_by_side import latex_several, load_several, print_several, summarise_several
from thinwire.report.side_page import write_several
from thinwire.report.tables import print_table
from thinwire.report.terminal import TerminalColumn, TerminalTable, plain, print_fitted

__all__ = [
    "Amount",
    "Record",
    "RecordedComparison",
    "RecordedMetric",
    "RecordedSetting",
    "ResultRow",
    "TerminalColumn",
    "TerminalTable",
    "csv_lines",
    "csv_table",
    "effective_target",
    "latex_several",
    "latex_table",
    "load",
    "load_several",
    "plain",
    "print_fitted",
    "print_several",
    "print_table",
    "refuse_met_at_start",
    "summarise",
    "summarise_several",
    "write_page",
    "write_several",
]
