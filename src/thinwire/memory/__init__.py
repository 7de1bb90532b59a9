"""What becomes of the part of a vector that a message left out."""

from thinwire.memory.base import InPlaceMemory, Memory, RoundedMemory, StreamingMemory
from thinwire.memory.ef21 import EF21
from thinwire.memory.error_feedback import ErrorFeedback
from thinwire.memory.handed import Difference, Handed
from thinwire.memory.momentum import Momentum
from thinwire.memory.momentum_correction import MomentumCorrection
from thinwire.memory.no_memory import NoMemory
from thinwire.memory.residual import ResidualDtype
from thinwire.memory.sender import MemorySender, Sender
from thinwire.memory.trigger import Trigger

__all__ = [
    "EF21",
    "Difference",
    "ErrorFeedback",
    "Handed",
    "InPlaceMemory",
    "Memory",
    "MemorySender",
    "Momentum",
    "MomentumCorrection",
    "NoMemory",
    "ResidualDtype",
    "RoundedMemory",
    "Sender",
    "StreamingMemory",
    "Trigger",
]
