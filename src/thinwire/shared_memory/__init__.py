"""Threads of one machine that train one vector, kept apart in six ways or not at all; ``docs/shared-memory.md``."""

from thinwire.kernels.shared_memory.variants import LOSSLESS, VARIANTS, Variant
from thinwire.shared_memory.contest import Contest, ContestResult, hold_contest
from thinwire.shared_memory.settings import Settings
from thinwire.shared_memory.sweep import Plan, Row, measure
from thinwire.shared_memory.tasks import TASKS, Examples, load_examples
from thinwire.shared_memory.training import LossPoint, Result, objective, train

__all__ = [
    "LOSSLESS",
    "TASKS",
    "VARIANTS",
    "Contest",
    "ContestResult",
    "Examples",
    "LossPoint",
    "Plan",
    "Result",
    "Row",
    "Settings",
    "Variant",
    "hold_contest",
    "load_examples",
    "measure",
    "objective",
    "train",
]
