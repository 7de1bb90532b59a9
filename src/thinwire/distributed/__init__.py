"""The same programs over links between processes."""

from thinwire.distributed.checkpoints import Checkpoints
from thinwire.distributed.comm_hook import compress_ddp
from thinwire.distributed.compressed_gradients import CompressedGradients
from thinwire.distributed.dense_policy import DensePolicy, LittleCompressed, NothingCompressed
from thinwire.distributed.dense_watch import SlowerThanDense
from thinwire.distributed.guard import ReplicaGuard
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.optimizer import DistributedOptimizer
from thinwire.distributed.serving import serve
from thinwire.distributed.sharded import ShardedGradients, compress_fsdp
from thinwire.distributed.shards import CompressedShards, compress_shards
from thinwire.distributed.step_hooks import synchronize
from thinwire.distributed.store_rounds import Deadline, RoundSettings, StoreSynchronizer, synchronize_by_store
from thinwire.distributed.synchronizer import Synchronizer
from thinwire.distributed.transport import Transport

__all__ = [
    "Checkpoints",
    "CompressedGradients",
    "CompressedShards",
    "Deadline",
    "DensePolicy",
    "DistributedOptimizer",
    "LinkOptions",
    "LittleCompressed",
    "NothingCompressed",
    "ReplicaGuard",
    "RoundSettings",
    "ShardedGradients",
    "SlowerThanDense",
    "StoreSynchronizer",
    "Synchronizer",
    "Transport",
    "compress_ddp",
    "compress_fsdp",
    "compress_shards",
    "serve",
    "synchronize",
    "synchronize_by_store",
]
