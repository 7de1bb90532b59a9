"""Between the shards of a model that FSDP2 shards: compressed gradients and weights."""

from thinwire.distributed.shards.entrance import compress_shards
from thinwire.distributed.shards.handle import CompressedShards

__all__ = ["CompressedShards", "compress_shards"]
