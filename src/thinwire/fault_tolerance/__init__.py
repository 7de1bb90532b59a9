"""Synchronous training in which machines come, go and fail: under a lighthouse of torchft, over links of thinwire."""

from thinwire.fault_tolerance.entrance import fault_tolerant
from thinwire.fault_tolerance.handle import FaultTolerant
from thinwire.fault_tolerance.session import Participation

__all__ = ["FaultTolerant", "Participation", "fault_tolerant"]
