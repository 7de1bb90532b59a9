"""What becomes of the part of a vector that a message left out."""

from thinwire.memory.base import InPlaceMemory, Memory, RoundedMemory, StreamingMemory
from thinwire.memory.change import Change, CorrectedChange
from thinwire.memory.ef21 import EF21
from thinwire.memory.error_control import ErrorControl
from thinwire.memory.error_feedback import ErrorFeedback
from thinwire.memory.estimated_momentum import EstimatedMomentum
from thinwire.memory.estimates import EstimatingMemory
from thinwire.memory.handed import Difference, Handed
from thinwire.memory.lion import LionMomentum
from thinwire.memory.low_pass import LowPass
from thinwire.memory.momentum import Momentum
from thinwire.memory.momentum_correction import MomentumCorrection
from thinwire.memory.momentum_feedback import MomentumFeedback
from thinwire.memory.no_memory import NoMemory
from thinwire.memory.residual import ResidualDtype
from thinwire.memory.sender import MemorySender, Sender
from thinwire.memory.shift import Shift
from thinwire.memory.trigger import Trigger

__all__ = [
    "EF21",
    "Change",
    "CorrectedChange",
    "Difference",
    "ErrorControl",
    "ErrorFeedback",
    "EstimatedMomentum",
    "EstimatingMemory",
    "Handed",
    "InPlaceMemory",
    "LionMomentum",
    "LowPass",
    "Memory",
    "MemorySender",
    "Momentum",
    "MomentumCorrection",
    "MomentumFeedback",
    "NoMemory",
    "ResidualDtype",
    "RoundedMemory",
    "Sender",
    "Shift",
    "StreamingMemory",
    "Trigger",
]
