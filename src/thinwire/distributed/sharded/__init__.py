"""Models that FSDP2 shards: compressed exchanges between replicas."""

from thinwire.distributed.sharded.entrance import compress_fsdp
from thinwire.distributed.sharded.handle import ShardedGradients

__all__ = ["ShardedGradients", "compress_fsdp"]
