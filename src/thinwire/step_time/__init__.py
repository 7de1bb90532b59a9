"""How long a training step takes with a method: functions of measured numbers, without a socket or a clock."""

from thinwire.step_time.curves import Curve, LinkCurves, Way
from thinwire.step_time.predict import dense_step_s, hooked_step_s, synchronized_step_s
from thinwire.step_time.values import Bucket, Compute, Exchange, Round

__all__ = [
    "Bucket",
    "Compute",
    "Curve",
    "Exchange",
    "LinkCurves",
    "Round",
    "Way",
    "dense_step_s",
    "hooked_step_s",
    "synchronized_step_s",
]
