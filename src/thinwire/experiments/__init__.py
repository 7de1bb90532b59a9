"""A frozen comparison of methods on a task, tuned alike, to JSON lines that are kept, resumed and loaded."""

from thinwire.experiments.frames import descriptions, load

__all__ = ["descriptions", "load"]
