"""The participants of a training run."""

from thinwire.worker.layer_report import JsonLines, LayerRecord, LayerReport, Scalars
from thinwire.worker.server import Server, needs_server
from thinwire.worker.sharing import can_share
from thinwire.worker.step_times import StepTimes
from thinwire.worker.worker import Worker

__all__ = [
    "JsonLines",
    "LayerRecord",
    "LayerReport",
    "Scalars",
    "Server",
    "StepTimes",
    "Worker",
    "can_share",
    "needs_server",
]
