"""Loops over flat arrays: packing, Rice codes, selection, random numbers, dithering, checksums."""

from thinwire.kernels.bits import largest_code, num_packed_bytes, pack, unpack
from thinwire.kernels.crc32c import crc32c
from thinwire.kernels.dither import quantize_levels
from thinwire.kernels.philox import random_words, uniform
from thinwire.kernels.rice import (
    max_rice_num_bytes,
    rice_decode,
    rice_encode,
    rice_num_bytes,
    rice_parameter,
)
from thinwire.kernels.select import top_k
from thinwire.kernels.subset import random_subset

__all__ = [
    "crc32c",
    "largest_code",
    "max_rice_num_bytes",
    "num_packed_bytes",
    "pack",
    "quantize_levels",
    "random_subset",
    "random_words",
    "rice_decode",
    "rice_encode",
    "rice_num_bytes",
    "rice_parameter",
    "top_k",
    "uniform",
    "unpack",
]
