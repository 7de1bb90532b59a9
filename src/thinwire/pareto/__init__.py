"""Bits against the final metric for a family of configurations; what they are made of is in ``family``."""

from thinwire.pareto.folders import FILE, family_text, load_family
from thinwire.pareto.page import write_page
from thinwire.pareto.parts import Part
from thinwire.pareto.points import ParetoResult
from thinwire.pareto.summary import summarise_family
from thinwire.pareto.tables import latex_points, print_pareto

__all__ = [
    "FILE",
    "ParetoResult",
    "Part",
    "family_text",
    "latex_points",
    "load_family",
    "print_pareto",
    "summarise_family",
    "write_page",
]
