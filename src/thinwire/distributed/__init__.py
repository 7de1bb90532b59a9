"""The same programs over torch.distributed."""

from thinwire.distributed.comm_hook import CompressedGradients, compress_ddp
from thinwire.distributed.optimizer import DistributedOptimizer
from thinwire.distributed.policy import DensePolicy
from thinwire.distributed.transport import Transport

__all__ = ["CompressedGradients", "DensePolicy", "DistributedOptimizer", "Transport", "compress_ddp"]
