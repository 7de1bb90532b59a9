"""Operators from vectors to payloads, one a file."""

from thinwire.compressors.base import Compressor, FusedCompressor, Traits, segment_traits
from thinwire.compressors.identity import Identity
from thinwire.compressors.qsgd import QSGD
from thinwire.compressors.rand_k import RandK
from thinwire.compressors.sign import Sign
from thinwire.compressors.top_k import TopK

__all__ = ["QSGD", "Compressor", "FusedCompressor", "Identity", "RandK", "Sign", "TopK", "Traits", "segment_traits"]
