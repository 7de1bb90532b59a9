"""Speed-up over numbers of workers: what comparisons with several of them say together."""

from thinwire.scaling.folders import load_speedup, subfolder
from thinwire.scaling.page import write_page
from thinwire.scaling.points import SpeedupResult
from thinwire.scaling.summary import summarise_speedup
from thinwire.scaling.tables import print_speedup

__all__ = [
    "SpeedupResult",
    "load_speedup",
    "print_speedup",
    "subfolder",
    "summarise_speedup",
    "write_page",
]
