"""Which method to train with on a link: link, step and compression are measured apart, and steps predicted."""

from thinwire.planner.compute import MeasuredCompute, measure_compute
from thinwire.planner.family import Candidate, Kind, candidates
from thinwire.planner.link import MeasuredLink, measure_curves
from thinwire.planner.local import MeasuredExchange, measure_casts, measure_hooked, measure_synchronized
from thinwire.planner.measuring import Measurements, measure
from thinwire.planner.rows import MODEL_ERROR, PlanRow, Seconds, predict
from thinwire.planner.training_step import TrainingStep

__all__ = [
    "MODEL_ERROR",
    "Candidate",
    "Kind",
    "MeasuredCompute",
    "MeasuredExchange",
    "MeasuredLink",
    "Measurements",
    "PlanRow",
    "Seconds",
    "TrainingStep",
    "candidates",
    "measure",
    "measure_casts",
    "measure_compute",
    "measure_curves",
    "measure_hooked",
    "measure_synchronized",
    "predict",
]
