"""Payloads as bytes: format version 1, specified in ``FORMAT.md``."""

from thinwire.wire.codec import decode, encode, encoded_num_bytes
from thinwire.wire.sparse import max_sparse_num_bytes

__all__ = ["decode", "encode", "encoded_num_bytes", "max_sparse_num_bytes"]
