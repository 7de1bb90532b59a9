"""Payloads as bytes: format version 1, specified in ``FORMAT.md``."""

from thinwire.wire.codec import decode, encode, encoded_num_bytes, max_num_bytes
from thinwire.wire.explain import Explanation, Field, explain
from thinwire.wire.kinds import kinds_in

__all__ = ["Explanation", "Field", "decode", "encode", "encoded_num_bytes", "explain", "kinds_in", "max_num_bytes"]
