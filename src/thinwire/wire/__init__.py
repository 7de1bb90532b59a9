"""Payloads as bytes: format version 1, specified in ``FORMAT.md``."""

from thinwire.wire.bounds import max_num_bytes
from thinwire.wire.codec import decode, encode, encoded_num_bytes
from thinwire.wire.explain import Explanation, Field, explain

__all__ = ["Explanation", "Field", "decode", "encode", "encoded_num_bytes", "explain", "max_num_bytes"]
