"""What compression costs, against memcpy, torch.topk and the entropy; ``docs/bench.md`` explains every row."""

from thinwire.bench.inputs import Input
from thinwire.bench.plan import Listener, Plan, measure, step_names
from thinwire.bench.rows import Row
from thinwire.bench.shapes import read_numel
from thinwire.bench.table import make_tables

__all__ = ["Input", "Listener", "Plan", "Row", "make_tables", "measure", "read_numel", "step_names"]
