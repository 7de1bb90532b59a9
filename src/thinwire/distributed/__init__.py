"""The same programs over torch.distributed."""

from thinwire.distributed.optimizer import DistributedOptimizer
from thinwire.distributed.transport import Transport

__all__ = ["DistributedOptimizer", "Transport"]
