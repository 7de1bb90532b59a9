"""The participants of a training run."""

from thinwire.worker.participant import Worker, can_share
from thinwire.worker.server import Server, needs_server

__all__ = ["Server", "Worker", "can_share", "needs_server"]
