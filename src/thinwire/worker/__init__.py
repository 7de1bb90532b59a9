"""One participant of a training run."""

from thinwire.worker.participant import Worker

__all__ = ["Worker"]
