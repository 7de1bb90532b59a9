"""The participants of a training run."""

from thinwire.worker.observing import JsonLines, LayerRecord, LayerReport, Scalars
from thinwire.worker.participant import Worker
from thinwire.worker.server import Server, needs_server
from thinwire.worker.sharing import can_share
from thinwire.worker.step_times import StepTimes

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
