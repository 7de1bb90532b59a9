"""What compression costs, against memcpy, torch.topk and the entropy; ``docs/bench.md`` explains every row."""

from thinwire.bench.inputs import BenchInput
from thinwire.bench.plan import Listener, Plan, measure, step_names
from thinwire.bench.rows import BenchRow
from thinwire.bench.shapes import read_numel
from thinwire.bench.table import make_tables

__all__ = ["BenchInput", "BenchRow", "Listener", "Plan", "make_tables", "measure", "read_numel", "step_names"]
