"""Which operator gives the least error for a number of bits on the wire; ``docs/frontier.md`` explains the numbers."""

from thinwire.frontier.best import Choice, best_operator
from thinwire.frontier.inputs import InputVectors, make_input
from thinwire.frontier.page import write_page
from thinwire.frontier.pairs import Pair, pairs
from thinwire.frontier.points import Point, pareto
from thinwire.frontier.sweep import Frontier, FrontierRow, frontier
from thinwire.frontier.tables import Line, budget_table, reference_table

__all__ = [
    "Choice",
    "Frontier",
    "FrontierRow",
    "InputVectors",
    "Line",
    "Pair",
    "Point",
    "best_operator",
    "budget_table",
    "frontier",
    "make_input",
    "pairs",
    "pareto",
    "reference_table",
    "write_page",
]
