"""Asynchronous training on Ray: a server and workers that come and go are its actors. Ray is imported late."""

from thinwire.ray.handle import AsyncHandle
from thinwire.ray.report import Report
from thinwire.ray.training import AsyncTraining
from thinwire.ray.worker import AsyncWorker

__all__ = ["AsyncHandle", "AsyncTraining", "AsyncWorker", "Report"]
