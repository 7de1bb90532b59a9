"""What becomes of the part of a vector that a message left out."""

from thinwire.memory.base import Memory
from thinwire.memory.error_feedback import ErrorFeedback
from thinwire.memory.no_memory import NoMemory
from thinwire.memory.remembering import Remembering

__all__ = ["ErrorFeedback", "Memory", "NoMemory", "Remembering"]
