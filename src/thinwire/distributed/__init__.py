"""The same programs over torch.distributed."""

from thinwire.distributed.checkpoints import Checkpoints
from thinwire.distributed.comm_hook import CompressedGradients, compress_ddp
from thinwire.distributed.optimizer import DistributedOptimizer
from thinwire.distributed.policy import DensePolicy
from thinwire.distributed.serving import serve
from thinwire.distributed.synchronizer import Synchronizer, synchronize
from thinwire.distributed.transport import Transport

__all__ = [
    "Checkpoints",
    "CompressedGradients",
    "DensePolicy",
    "DistributedOptimizer",
    "Synchronizer",
    "Transport",
    "compress_ddp",
    "serve",
    "synchronize",
]
